"""What came back: submissions with the pre-label against the label, and the validation cases where the model is worst."""

from __future__ import annotations

import statistics

from lib.server.kept import KeptLabels
from lib.server.page.comparing import Comparing
from lib.server.page.desk import Desk
from lib.server.page.drawings import Drawings
from lib.server.page.learning import cases_of
from lib.server.page.models import Comparison, SubmissionShown, SubmissionsPage, WorstCase, WorstCases
from lib.store.records import Submission


class Submitted:
    """The fourth panel."""

    def __init__(self, desk: Desk, drawings: Drawings, comparing: Comparing) -> None:
        self._desk, self._drawings, self._comparing = desk, drawings, comparing
        self._kept = KeptLabels(desk.journal)

    def page(self, offset: int, limit: int, search: str) -> SubmissionsPage:
        """Submissions, newest first; those on the page that were not compared yet are compared in the background."""
        journal = self._desk.journal
        count, rows = journal.submission_page(offset, limit, search)
        results = journal.comparisons([s.id for s, _, _ in rows])
        missing = [s for s, _, _ in rows if s.id not in results]
        self._comparing.ask(reversed(missing))  # the newest last, which is done first
        sides = journal.splits()
        entries = [
            self._shown(s, versions, current, sides.get(s.group) == "validation", results.get(s.id))
            for s, versions, current in rows
        ]
        return SubmissionsPage(offset=offset, limit=limit, count=count, entries=entries)

    def worst(self, limit: int) -> WorstCases:
        """Validation cases of the live model by rising mean Dice."""
        live = self._desk.journal.live_version(self._desk.model)
        cases = cases_of(live) if live else {}
        means = {image: statistics.fmean(case.values()) for image, case in cases.items() if case}
        worst = sorted(means, key=lambda image: (means[image], image))[:limit]
        return WorstCases(
            version=live.version if live else None,
            cases=len(means),
            entries=[
                WorstCase(
                    image=image,
                    dice=dict(cases[image]),
                    mean=means[image],
                    viewer=self._desk.address(image),
                    mark=self._drawings.mark(image),
                )
                for image in worst
            ],
        )

    def _shown(
        self, submission: Submission, versions: int, current: bool, validation: bool, result: dict | None
    ) -> SubmissionShown:
        compared = "pending" if result is None else "ready" if "dice" in result else "none"
        known = self._desk.studies.known(submission.image)
        return SubmissionShown(
            id=submission.id,
            image=submission.image,
            client=submission.client,
            ts=submission.ts,
            classes=list(submission.labels),
            model_version=submission.model_version,
            versions=versions,
            current=current,
            removed=submission.removed,
            kept=bool(submission.kept) and (self._kept.root / submission.kept).is_file(),
            validation=validation,
            comparison=Comparison(**result) if compared == "ready" else None,
            compared=compared,
            sentence=str(result["sentence"]) if compared == "none" else "",
            viewer=self._desk.address(submission.image) if known else None,
            mark=self._drawings.mark(submission.image) if known else "",
        )
