"""Does our code compute what the published code computes? Runs every recorded case of a folder and its sub-folders.

    python benchmarks/golden.py [DIR]

Exits 0 when all cases agree, 1 when one does not, 2 when DIR holds no case. Where a published defect is mended, the recorded
value of the mended form (`_spec`) is compared, and the published one where a switch of ours gives it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "apps" / "loco")]

import numpy as np  # noqa: E402
from benchmarks.golden_checks import CHECKERS, LEFT_OUT, checker_of  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from lib.progressbar import track  # noqa: E402

DEFAULT = ROOT.parent / "shared" / "golden"


def main(arguments: list[str]) -> int:
    """Check all cases and print one line each; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", nargs="?", type=Path, default=DEFAULT)
    folder = parser.parse_args(arguments).dir
    console = Console(width=140)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.npz"))}
    known = {name: path for name, path in files.items() if checker_of(name)}
    if not known:
        console.print(
            f"expected {folder} to hold recorded cases ({', '.join(CHECKERS)}*.npz), but found none; name the folder"
        )
        return 2
    table = Table("case", "quantity", "error", "tolerance", "")
    failures = quantities = 0
    for name, path in track(known.items(), "Comparing recorded cases"):
        check = checker_of(name)
        assert check is not None
        with np.load(path) as case:
            errors = check(case)
        for quantity, (error, tolerance) in errors.items():
            agrees = error <= tolerance  # NaN does not
            failures, quantities = failures + (not agrees), quantities + 1
            table.add_row(name, quantity, f"{error:.1e}", f"{tolerance:.0e}", "ok" if agrees else "[red]differs[/red]")
    console.print(table)
    for line in left_out(files):
        console.print(line, highlight=False)
    console.print(f"{len(known)} of {len(files)} cases, {quantities} quantities, {failures} differ")
    return 1 if failures else 0


def left_out(files: Iterable[str]) -> list[str]:
    """What is not compared, with the reason; a file without checker or reason is not implemented."""
    present = [name for name in LEFT_OUT if any(f.startswith(name.split(":")[0]) for f in files)]
    unknown = [f for f in files if checker_of(f) is None and not any(f.startswith(name) for name in LEFT_OUT)]
    folders = sorted({Path(f).parent.as_posix() if "/" in f else f for f in unknown})
    return [*(f"left out, {n}: {LEFT_OUT[n]}" for n in present), *(f"{f}: not implemented yet" for f in folders)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
