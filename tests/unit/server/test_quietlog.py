import logging

import pytest

from lib.core.images import CaseError
from lib.decisions import nameless
from lib.server.quietlog import keep_names_out

SECRET = "Mustermann_Erika"


@pytest.fixture
def written(monkeypatch):
    """Lines that reach the one handler of the root logger."""
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [Lines()])
    monkeypatch.setattr(root, "level", logging.INFO)
    return lines


def test_monai_label_writes_requests_however_it_sets_its_levels_but_not_here(written):
    theirs = logging.getLogger("monailabel.tasks.infer.basic_infer")
    theirs.setLevel(logging.INFO)  # as it does with each inference
    theirs.info("Infer Request (final): %s", {"image": SECRET})
    assert SECRET in " ".join(written), "as it comes"
    written.clear()
    keep_names_out()
    keep_names_out()
    assert len(logging.getLogger().handlers[0].filters) == 1
    theirs.info("Infer Request (final): %s", {"image": SECRET})
    logging.getLogger("__main__").info("Result: %s", SECRET)
    theirs.warning("what an operator must know")
    logging.getLogger("lib.anything").info("ours")
    assert written == ["what an operator must know", "ours"]


def test_a_file_that_cannot_be_read_is_named_by_its_hash(written):
    keep_names_out()
    logging.getLogger("lib.core.batch").warning("Skipped: %s", CaseError(f"a/{SECRET}.NII.GZ", "expected a volume"))
    assert written == ["Skipped: 88d8b6e5b727: expected a volume"]
    theirs = CaseError(f"/a/{SECRET}.png", f"expected a picture (cannot identify image file '/a/{SECRET}.png')")
    assert nameless(theirs) == "88d8b6e5b727: expected a picture (cannot identify image file '88d8b6e5b727')"
    assert nameless(OSError(28, "No space left on device", f"/studies/{SECRET}.png")) == "No space left on device"
