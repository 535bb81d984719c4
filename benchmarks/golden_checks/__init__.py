"""One module per folder of recorded cases: `CHECKERS`, beginning of a file's path below DIR -> function; `LEFT_OUT`.

`LEFT_OUT` maps a file, or a file and the pieces in it, to the reason why nothing of ours is compared with it. Modules are
found by themselves; to add a method, add a file.
"""

import importlib
import pkgutil

from benchmarks.golden_checks.common import Check

_MODULES = [
    importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__) if m.name != "common"
]

CHECKERS: dict[str, Check] = {k: v for m in _MODULES for k, v in m.CHECKERS.items()}
LEFT_OUT: dict[str, str] = {k: v for m in _MODULES for k, v in getattr(m, "LEFT_OUT", {}).items()}


def checker_of(name: str) -> Check | None:
    """Checker of a file by its path below DIR, the one with the longest fitting beginning; None if there is none."""
    fitting = [prefix for prefix in CHECKERS if name.startswith(prefix)]
    return CHECKERS[max(fitting, key=len)] if fitting else None
