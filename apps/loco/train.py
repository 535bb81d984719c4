"""Train the project of a folder of studies outside the server: `python apps/loco/train.py --studies STUDIES`.

Under torchrun with as many processes as there are devices; see "Several devices" in the README.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

APP = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    """Parse, train, print the outcome; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", required=True, help="folder or DICOMweb address, as the server has it")
    parser.add_argument(
        "--app", type=Path, default=APP, help="the server's app folder, where the models lie; default: this one"
    )
    parser.add_argument(
        "--conf", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="as of the server"
    )
    options = parser.parse_args(arguments)
    rank = os.environ.get("RANK", "0")
    logging.basicConfig(
        level=logging.INFO, format=f"[%(asctime)s] [rank {rank}] [%(levelname)s] (%(name)s) - %(message)s"
    )
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.path.insert(0, str(options.app.resolve()))
    from lib.trainers.launch import launch

    stats = launch(options.app.resolve(), options.studies, dict(options.conf))
    if stats:
        logging.getLogger("train").info("Version %s: %s", stats.get("version"), stats.get("reason"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
