"""A simulated annotator: asks a running server for the next image, submits the true label, waits for the retraining.

    python benchmarks/annotate.py --server URL --truth FOLDER --labels N [--validation FOLDER] [--out FILE.json]

FOLDER of --truth holds one label file per image, of the same name and any extension. FOLDER of --validation holds
`images` and `labels`; the server segments each image after every training, and the result is compared on the voxels
of the image. Without it the Dice that the server measured itself is shown. Only the public REST API is used, through
monailabel's own client.

Exit status: 0 all labels were submitted, or nothing was left to label; 1 something did not hold (no training came, an
image was served twice, no label could be submitted); 2 it could not start.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "apps" / "loco")]

from benchmarks.annotator import Annotator, Limits, sentence_of  # noqa: E402
from benchmarks.events import AnnotatorError  # noqa: E402
from benchmarks.report import write  # noqa: E402
from benchmarks.show import Show, summary  # noqa: E402
from monailabel.client.client import MONAILabelClientException  # noqa: E402
from rich.console import Console  # noqa: E402

_ANSWER_S = 600
"""A request that takes longer is given up."""


def figures_of(annotator: Annotator) -> dict[str, Any]:
    """What --out keeps."""
    return {
        "curve": [asdict(point) for point in annotator.curve],
        "served": [asdict(picked) for picked in annotator.served],
        "submitted": annotator.submitted,
        "repeated": annotator.repeats,
    }


def arguments_of(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="http://127.0.0.1:8000", help="address")
    parser.add_argument("--truth", type=Path, required=True, help="folder of label files")
    parser.add_argument("--labels", type=int, required=True, help="how many to submit")
    parser.add_argument("--validation", type=Path, help="folder with images and labels to measure on")
    parser.add_argument("--strategy", default="low_contrast")
    parser.add_argument("--retrain-every", type=int, default=5, help="labels after which to wait for a training")
    parser.add_argument("--start-limit", type=float, default=Limits.start, help="seconds to wait for one to start")
    parser.add_argument("--training-limit", type=float, default=Limits.training, help="seconds to wait for its end")
    parser.add_argument("--out", type=Path, help="write the figures into this JSON file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Label, print, write; the exit status."""
    options = arguments_of(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    logging.getLogger().setLevel(logging.WARNING)
    socket.setdefaulttimeout(_ANSWER_S)
    try:
        limits = Limits(options.start_limit, options.training_limit)
        annotator = Annotator(options.server, options.truth, options.validation, options.strategy, limits)
        annotator.connect()
    except (AnnotatorError, MONAILabelClientException, OSError) as e:
        console.print(sentence_of(e), style="red", markup=False, highlight=False)
        return 2
    show, failed = Show(console), False
    try:
        for event in annotator.run(options.labels, options.retrain_every):
            show(event)
    except (AnnotatorError, MONAILabelClientException) as e:
        show.stop()
        console.print(sentence_of(e), style="red", markup=False, highlight=False)
        failed = True
    finally:
        show.stop()
        annotator.close()
    summary(annotator, console)
    if options.out:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items() if k != "out"}
        settings["seeds"] = "the server's --conf seed; the annotator itself draws no random numbers"
        console.print(f"Written: {write(options.out.stem, settings, figures_of(annotator), options.out.parent)}")
    return 1 if failed or annotator.repeats or annotator.submitted == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
