# LoCo for MONAI Label. `make demo` shows the whole loop, `make run` serves your studies, `make test` checks everything.
SHELL := /bin/bash
PYTHON ?= python3
STUDIES ?=
LABELS ?=
TO ?=
ARGS ?=
WORKERS ?= 2
HOST ?= 127.0.0.1
PORT ?= 8000

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.requirements.sha256
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
# MONAI Label looks for dcmqi's tools on the PATH. Its wheel's own start script is not where uv looks for scripts, so one
# is written; --compile-bytecode makes each start of the server and of a training half a minute shorter
# hospital networks often sign their traffic with a certificate of their own
export UV_SYSTEM_CERTS ?= true
# threads that wait at barriers give way to the other processes on the same cores
export OMP_WAIT_POLICY ?= PASSIVE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install demo run export test pacs lint format lock golden clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

install: $(STAMP)  ## the environment in .venv, made when missing or stale

$(STAMP): requirements.txt
	@command -v $(UV) >/dev/null || { $(PYTHON) -m venv .uv && .uv/bin/pip install --quiet uv; }
	@if [ -x $(BIN)/python ] && sha256sum --status -c $(STAMP) 2>/dev/null; then touch $(STAMP); else \
		echo "Installing the environment (about 8 GB; a few minutes the first time) ..."; \
		[ -x $(BIN)/python ] || $(UV) venv --quiet --python 3.11 $(VENV); \
		$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.txt && \
		printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -m monailabel.main "$$@"\n' > $(BIN)/monailabel && \
		chmod +x $(BIN)/monailabel && \
		sha256sum requirements.txt > $(STAMP); fi

demo: install  ## generated studies, server and a simulated annotator: watch the loop close
	$(BIN)/python benchmarks/demo.py $(ARGS)

run: install  ## serve STUDIES=<folder or DICOMweb address> LABELS=polyp [ARGS="--conf method supervised"]
	@test -n "$(STUDIES)" || { echo 'make run needs STUDIES=<folder or DICOMweb address>, for example: make run STUDIES=/data/frames LABELS=polyp'; exit 2; }
	$(BIN)/monailabel start_server --app apps/loco --studies "$(STUDIES)" --host $(HOST) --port $(PORT) \
		$(if $(LABELS),--conf labels '$(LABELS)') $(ARGS)

export: install  ## the trained model of STUDIES=<...> as a MONAI bundle in TO=<folder> [ARGS="--version 2"]
	@test -n "$(STUDIES)" -a -n "$(TO)" || { echo 'make export needs STUDIES=<as for make run> and TO=<folder>'; exit 2; }
	$(BIN)/python apps/loco/export.py --studies "$(STUDIES)" --to "$(TO)" $(ARGS)

# whole files go to one of the workers, the long ones first; the tensors of tests are tiny, so that one thread for each is quickest
test: install lint pacs  ## every test, in WORKERS=2 processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# tests on a PACS and in a browser need Debian's Orthanc and Chromium; where they are missing, and this may not install
# them, pytest names the tests it leaves out and how to get them
PACS_PACKAGES := orthanc orthanc-dicomweb chromium
pacs:
	@if [ -f /etc/debian_version ] && [ "$$(id -u)" = 0 ] && ! dpkg -s $(PACS_PACKAGES) >/dev/null 2>&1; then \
		{ apt-get install -y -qq $(PACS_PACKAGES) >/dev/null 2>&1 || \
		{ apt-get update -qq && apt-get install -y -qq $(PACS_PACKAGES) >/dev/null; }; } || \
		echo "Not installed: $(PACS_PACKAGES); the tests that need them are left out"; fi

lint: install
	$(BIN)/ruff check apps benchmarks tests
	$(BIN)/ruff format --check apps benchmarks tests

format: install
	$(BIN)/ruff check --fix apps benchmarks tests
	$(BIN)/ruff format apps benchmarks tests

golden: install  ## recorded losses of the published code against ours
	$(BIN)/python benchmarks/golden.py $(ARGS)

lock:  ## compile requirements.in into requirements.txt
	$(UV) pip compile --quiet --python-version 3.11 requirements.in -o requirements.txt

clean:
	rm -rf $(VENV) .uv
