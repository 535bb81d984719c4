"""Looks at every study once, in the background, so that the first images can be chosen before there is a model.

Studies that come later are looked at when they come: the server may be started on a folder that is still being filled.
"""

from __future__ import annotations

import logging
import threading
import time

import numpy as np

from lib.core.cases import load_case
from lib.core.coldstart import appearance
from lib.core.images import CaseError
from lib.core.lowcontrast import field_of_view
from lib.core.quality import quality_terms
from lib.core.spec import TaskSpec
from lib.server.datastores import Studies
from lib.store.project import Project
from lib.store.records import Score
from lib.studies import image_of

logger = logging.getLogger(__name__)

_COMMIT_EVERY = 10
_AGAIN_S = 30.0
"""So long after a look the next one is for studies that came since."""
MAX_STUDIES = 5000
"""A larger pool is sampled: enough to tell what is typical."""


class ColdStart:
    """Fills the scores of version 0: embedding, contrast and quality of each study."""

    def __init__(self, name: str, spec: TaskSpec, project: Project, datastore: Studies) -> None:
        self._name, self._spec, self._project, self._datastore = name, spec, project, datastore
        self._stop = threading.Event()

    def start(self) -> None:
        """Run in a thread of its own."""
        threading.Thread(target=self._run, name="loco-coldstart", daemon=True).start()

    def stop(self) -> None:
        """End early."""
        self._stop.set()

    def look(self) -> int:
        """Describe what was not described yet. Returns how many studies were."""
        journal = self._project.journal
        done = journal.scored_images(self._name, 0)
        images = [i for i in sorted(self._datastore.list_images()) if i not in done]
        room = max(0, MAX_STUDIES - len(done))
        # the first choices may come before the end: not from one patient or one ward alone
        images = np.random.default_rng(0).permutation(images)[:room].tolist()
        rows: list[Score] = []
        for image_id in images:
            if self._stop.is_set():
                break
            image = image_of(self._datastore, image_id) if self._datastore.at_hand(image_id) else ""
            if not image:
                continue
            try:
                case = load_case(image, None, self._spec.data, self._spec.network.classes)
            except CaseError as e:
                logger.warning("Not described: %s", e)
                continue
            seen = appearance(case.image)
            embedding = seen.embedding.astype(np.float16).tobytes()
            terms = {"image/contrast": seen.contrast, "image/gradient": seen.gradient}
            terms |= quality_terms(case.image, field_of_view(case.image, self._spec.data.kind == "frame"))
            rows.append(Score(image_id, terms, embedding))
            if len(rows) % _COMMIT_EVERY == 0:
                journal.put_scores(self._name, 0, rows, time.time())
                rows = []
        journal.put_scores(self._name, 0, rows, time.time())
        return len(images)

    def _run(self) -> None:
        seen: set[str] = set()
        while True:
            images = set(self._datastore.list_images())
            if images - seen:
                self._look_and_say()
            seen = images
            if self._stop.wait(_AGAIN_S):
                return

    def _look_and_say(self) -> None:
        try:
            started = time.time()
            count = self.look()
            if count:
                logger.info("Looked at %d studies in %.0f s for the cold start", count, time.time() - started)
        except Exception:  # a full disk, the journal, pixels that torch cannot take: the thread goes on
            logger.exception("Could not look at the studies; those not looked at are chosen last")
