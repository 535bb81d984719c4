"""The journal against a model of it in plain dictionaries: any order of calls, restarts and clocks that go back included."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lib.store.journal import Journal

IMAGES = st.sampled_from(["a", "b", "c", "ü/../é"])
CLIENTS = st.sampled_from(["", "ann", "bob"])
STEPS = st.floats(-1e4, 1e4)


class JournalStates(RuleBasedStateMachine):
    """Submissions, removals, leases, runs and versions."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.journal = Journal(self.folder / "loco.sqlite")
        self.now = 1e9
        self.rows = []
        self.open_runs, self.ended = [], {}
        self.versions, self.live = 0, None

    def teardown(self):
        if hasattr(self, "journal"):
            self.journal.close()
            shutil.rmtree(self.folder)

    @rule(seconds=STEPS)
    def time_passes_or_goes_back(self, seconds):
        self.now += seconds

    @rule()
    def restart(self):
        self.journal.close()
        self.journal = Journal(self.folder / "loco.sqlite")

    @rule(image=IMAGES, client=CLIENTS, version=st.none() | st.integers(1, 9))
    def submit(self, image, client, version):
        kept = f"k{len(self.rows)}"
        number = self.journal.add_submission(image, image, "label", "sha", {"x": 1}, client, version, self.now, kept)
        assert number == len(self.rows) + 1
        self.rows.append({"image": image, "client": client, "version": version, "kept": kept, "removed": False})
        self.journal.release(image)

    @rule(image=IMAGES)
    def remove(self, image):
        hit = [r for r in self.rows if r["image"] == image and not r["removed"]]
        assert self.journal.mark_removed(image, self.now) == len(hit)
        for row in hit:
            row["removed"] = True

    @rule(client=CLIENTS, ttl=st.floats(1, 5000))
    def lease(self, client, ttl):
        before = self.journal.open_leases(self.now)
        image = self.journal.lease(["a", "b", "c"], client, ttl, self.now)
        assert image is None or before.get(image, client) == client, "nobody else held it"
        if image is not None:
            assert self.journal.open_leases(self.now)[image] == client
            assert image not in self.journal.open_leases(self.now + ttl + 1), "it ends by itself"

    @rule(image=IMAGES, client=CLIENTS, version=st.integers(1, 9))
    def segmented(self, image, client, version):
        self.journal.note_start(image, client, version, self.now)
        assert self.journal.start_of(image, client) == version

    @rule()
    def start_run(self):
        self.open_runs.append(
            self.journal.start_run("m", "why", self.journal.last_submission_id(), os.getpid(), self.now)
        )

    @precondition(lambda self: self.open_runs)
    @rule(status=st.sampled_from(["done", "failed", "stopped", "interrupted"]))
    def end_run(self, status):
        run = self.open_runs.pop(0)
        assert self.journal.finish_run(run, status, "", self.now)
        assert not self.journal.finish_run(run, "failed", "again", self.now), "the first ending stays"
        self.ended[run] = status

    @rule(live=st.booleans())
    def publish(self, live):
        number = self.journal.add_version("m", "p", "s", None, 0.5, 1, {}, live, self.now)
        assert number == self.versions + 1
        self.versions = number
        self.live = number if live else self.live

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def roll_back(self, data):
        self.live = data.draw(st.integers(1, self.versions))
        self.journal.set_live("m", self.live)

    @invariant()
    def the_journal_says_what_happened(self):
        if not hasattr(self, "journal"):
            return
        active = [r for r in self.rows if not r["removed"]]
        assert [s.kept for s in self.journal.submissions()] == [r["kept"] for r in active]
        latest = {r["image"]: r for r in self.rows}
        labelled = {image for image, row in latest.items() if not row["removed"]}
        assert self.journal.labelled_images() == labelled == {s.image for s in self.journal.latest()}
        for image in latest:
            versions = [r["kept"] for r in self.rows if r["image"] == image]
            assert [s.kept for s in self.journal.history(image)] == versions[::-1], "removed ones too"
        assert {r.id for r in self.journal.running_runs()} == set(self.open_runs)
        live = self.journal.live_version("m")
        assert (live.version if live else None) == self.live


TestJournalStates = JournalStates.TestCase
TestJournalStates.settings = settings(
    max_examples=int(os.environ.get("LOCO_EXAMPLES", "15")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
