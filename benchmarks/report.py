"""What every benchmark records beside its figures: commit, versions, machine. Writes benchmarks/results/<name>.json."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "monai", "numpy", "monailabel", "segmentation-models-pytorch")


def commit() -> str:
    """Present commit, `-dirty` appended when code differs from it; 'none' where there is no commit.

    What benchmarks write themselves, results and the tables in docs, is no code: the second cell of a file would be dirty.
    """
    try:
        head = _git("rev-parse", "HEAD")
        written = (":(exclude)benchmarks/results", ":(exclude)docs")
        return f"{head}-dirty" if _git("status", "--porcelain", "--untracked-files=no", "--", ".", *written) else head
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "none"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages among `PACKAGES`."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, threads of torch, memory in GiB and, if there is one, the accelerator."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(pages / 2**30, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def write(name: str, settings: dict[str, Any], figures: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write one result with everything needed to repeat it, and return its path. `settings` names seeds and sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    record = {
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
        "settings": settings,
        "figures": figures,
    }
    path.write_text(compact(json.dumps(record, indent=1, ensure_ascii=False)) + "\n")
    return path


def compact(text: str) -> str:
    """Indented JSON with each innermost list and object on one line: a line per case."""
    return re.sub(r"[{\[][^{}\[\]]*[}\]]", lambda innermost: re.sub(r"\n\s*", " ", innermost[0]), text)
