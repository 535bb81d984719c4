"""Hundreds of seeded faults at the writes of submissions, versions and scores; what was answered stays, what serves is whole."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import sqlite3

import numpy as np
import pytest
import torch
from injection import injected, seeded, unfinished, until_it_ends
from PIL import Image

from lib.core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lib.core.files import remove_leftovers
from lib.core.plan import plan_task
from lib.core.spec import MethodSpec
from lib.core.validate import Validation
from lib.server.folder import FolderStudies
from lib.server.kept import KeptLabels, restore_labels
from lib.server.policy import decide
from lib.store.journal import Journal, JournalError
from lib.store.project import ModelFolder
from lib.store.records import Score
from lib.trainers.publish import adopt_live, publish, roll_back

FAULTS = int(os.environ.get("LOCO_FAULTS", "100"))
"""Per test; raise it for a long search."""
MODEL = "frame"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A forked child has no other threads, so torch must not wait for any."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def open_journal(root):
    return Journal(root / "studies/loco.sqlite", busy_s=5)


def whole(root):
    """The journal's file is an intact database."""
    connection = sqlite3.connect(root / "studies/loco.sqlite")
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    finally:
        connection.close()


def label_bytes(number):
    """A label that no other number has: its binary digits as pixels."""
    digits = [int(d) for d in f"{number:048b}"]
    content = io.BytesIO()
    Image.fromarray(np.array(digits, np.uint8).reshape(6, 8)).save(content, "png")
    return content.getvalue()


def open_studies(root):
    """What the server opens: the folder and its journal, and, as at each start, what a crash left is put in order."""
    studies = FolderStudies(root / "studies", open_journal(root))
    studies.attach({"lesion": 1}, "(.*)")
    restore_labels(studies._journal, KeptLabels(studies._journal))
    return studies


def digest_of(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_was_answered_survives_and_what_was_refused_changes_nothing(tmp_path):
    """Submissions to one growing project, a fault in each, and sometimes label files that come to harm."""
    (tmp_path / "studies").mkdir()
    for n in range(20):
        Image.new("L", (8, 6), n).save(tmp_path / f"studies/image{n}.png")
    open_studies(tmp_path)._journal.close()
    answered, ends, refused = {}, set(), 0
    numbers = itertools.count(1)
    for seed, kind, at in seeded(FAULTS, steps=40):
        rng = random.Random(seed)
        work = [(f"image{rng.randrange(20)}", next(numbers)) for _ in range(2)]

        def annotate(say, work=work, kind=kind, at=at):
            studies = open_studies(tmp_path)
            with injected(kind, at):
                for image, number in work:
                    upload = tmp_path / "upload.png"
                    upload.write_bytes(label_bytes(number))
                    try:
                        studies.save_label(image, str(upload), "final", {"client_id": "ann"})
                        say(f"answered {image} {number}")
                    except (OSError, JournalError):
                        say(f"refused {image} {number}")
                    _check_folder(tmp_path, studies._journal)

        said, code = until_it_ends(annotate, kind)
        ends.add(code)
        for line in said:
            what, image, number = line.split()
            refused += what == "refused"
            if what == "answered":
                answered[image] = int(number)
        if rng.random() < 0.3 and answered:
            _harm(tmp_path, rng, sorted(answered))
        studies = open_studies(tmp_path)
        _check(tmp_path, studies._journal, answered)
        studies._journal.close()
    assert ends == {0, -9}, "some ended well, with or without a refusal, and some were killed"
    assert refused > FAULTS // 10
    assert whole(tmp_path)
    assert len(answered) > 10


def _harm(root, rng, images):
    label = root / "studies/labels/final" / f"{rng.choice(images)}.png"
    how = rng.choice(("gone", "half", "empty"))
    if how == "gone":
        label.unlink(missing_ok=True)
    elif label.exists():
        content = label.read_bytes()
        label.write_bytes(b"" if how == "empty" else content[: len(content) // 2])


def _check_folder(root, journal):
    """The labels in the folder are those that count, no more and no other."""
    files = {p.stem: digest_of(p) for p in (root / "studies/labels/final").glob("[!.]*")}
    assert files == {s.image: s.sha256 for s in journal.latest()}


def _check(root, journal, answered):
    kept = KeptLabels(journal)
    for image, number in answered.items():
        digests = [s.sha256 for s in journal.history(image)]
        assert hashlib.sha256(label_bytes(number)).hexdigest() in digests
        assert all(kept.path(s) is not None for s in journal.history(image)), "every version is there"
    _check_folder(root, journal)
    assert unfinished(root) == []


@pytest.fixture(scope="module")
def tiny():
    """A checkpoint of a network with one layer, so that a publication takes milliseconds."""
    spec = plan_task("frame", {"lesion": 1}, [], MethodSpec(name="supervised"), False)
    weights = {"w": torch.zeros(10)}
    return Checkpoint(spec, student=weights, teacher=weights)


def test_the_live_model_is_always_whole(tmp_path, tiny):
    """Publications and roll-backs, a fault in each; after a restart journal and file name the same version."""
    (tmp_path / "studies").mkdir()
    folder = ModelFolder(tmp_path / "model")
    folder.root.mkdir()
    ends, published = set(), 0
    for seed, kind, at in seeded(FAULTS, steps=30, seed=1):

        def train(say, seed=seed, kind=kind, at=at):
            journal = open_journal(tmp_path)
            rng = random.Random(seed)
            with injected(kind, at):
                run = journal.start_run(MODEL, "test", 0, os.getpid(), float(seed))
                save_checkpoint(tiny, folder.run)
                save_checkpoint(tiny, folder.best)
                dice = Validation({"a": {"lesion": rng.random()}})
                publish(MODEL, folder, journal, tiny, dice, dice if seed % 2 else None, run)
                say("published")
                if seed % 5 == 0:
                    roll_back(MODEL, folder, journal, journal.live_version(MODEL).version)
                journal.finish_run(run, "done", "", float(seed))

        said, code = until_it_ends(train, kind)
        ends.add(code)
        published += len(said)
        journal = open_journal(tmp_path)
        adopt_live(MODEL, folder, journal)
        live = journal.live_version(MODEL)
        if folder.live.exists():
            assert live.version == load_checkpoint(folder.live).version
        else:
            assert not published
        for file in (folder.run, folder.best):
            assert not file.exists() or load_checkpoint(file)
        journal.close()
    assert ends == {0, 3, -9}
    remove_leftovers(folder.root, older_than_s=-1)
    assert [p for p in folder.root.rglob(".*.tmp")] == []
    files = sorted(int(p.stem) for p in (folder.root / "versions").iterdir())
    assert len(files) <= 12, "old versions, and those that a crash left unlisted, are deleted"
    assert unfinished(tmp_path) == []
    assert whole(tmp_path)


def test_scores_come_whole_or_not_at_all(tmp_path):
    """A pass writes 20 scores at a time; a fault leaves a multiple of it, and the next pass goes on."""
    (tmp_path / "studies").mkdir()
    for seed, kind, at in seeded(FAULTS // 2, steps=8, seed=2):

        def score(say, seed=seed, kind=kind, at=at):
            journal = open_journal(tmp_path)
            with injected(kind, at):
                for start in range(0, 60, 20):
                    rows = [Score(f"{i}", "any", {"x": 1.0}, b"", 0.0) for i in range(start, start + 20)]
                    journal.put_scores(MODEL, seed + 1, rows)

        until_it_ends(score, kind)
        journal = open_journal(tmp_path)
        assert len(journal.scored_images(MODEL, seed + 1)) % 20 == 0
        journal.close()
    assert whole(tmp_path)


def test_no_lease_blocks_an_image_for_ever(tmp_path):
    """Processes take leases and die; the clock goes back by days in between."""
    (tmp_path / "studies").mkdir()
    images, now = [f"image{n}" for n in range(8)], 1e9
    for seed, kind, at in seeded(FAULTS // 2, steps=6, seed=3):
        rng = random.Random(seed)
        now += rng.choice((1.0, 60.0, 3600.0, -86400.0))

        def take(say, seed=seed, kind=kind, at=at, now=now):
            journal = open_journal(tmp_path)
            with injected(kind, at):
                image = journal.lease(images, f"client{seed % 5}", 1800, now)
                journal.release(image) if image and seed % 3 == 0 else None

        until_it_ends(take, kind)
    journal = open_journal(tmp_path)
    assert journal.lease(images, "somebody", 1800, now + 30 * 86400) is not None
    assert journal.open_leases(now + 60 * 86400) == {}


def test_retraining_goes_on_when_the_clock_goes_back(tmp_path):
    """A label of the future and a run that ended in it do not keep the policy waiting for ever."""
    (tmp_path / "studies").mkdir()
    journal = open_journal(tmp_path)
    for number in range(6):
        journal.add_submission(f"i{number}", "p", "l", "s", {}, "", None, 2e9)
    decision = decide(journal.submissions(), [], busy=False, now=1e9, retrain_after=5, retrain_idle=20)
    assert decision.start, decision.reason
