"""How far the project is: counts, days, who holds what, what is left to do, what retraining waits for."""

from __future__ import annotations

import statistics
import time
from datetime import date, timedelta

from monailabel.config import settings
from monailabel.endpoints.user.auth import User

from lib.activelearning.board import View
from lib.server.auth import role_names
from lib.server.leases import SKIP_REASONS
from lib.server.page.desk import Desk
from lib.server.page.drawing import colour_of
from lib.server.page.effort import METHOD, estimate
from lib.server.page.learning import common_points
from lib.server.page.models import (
    ClassShown,
    Day,
    Effort,
    LeaseShown,
    RetrainingShown,
    Rights,
    SkippedGroup,
    SkippedImage,
    Summary,
)
from lib.server.policy import new_labels

_DAYS = 60
_SHOWN = 100
_TIMED = 50


def summary(desk: Desk, user: User) -> Summary:
    """The first panel."""
    now, view, journal = time.time(), desk.view(), desk.journal
    taken = {s.image for s in journal.submissions(view.last_submission)}
    waiting = {i for i, free in zip(view.pool.images, view.free, strict=True) if free} - taken
    leased = [LeaseShown(image=x.image, client=x.client, since=x.since, until=x.expires) for x in journal.leases(now)]
    leased = [lease for lease in leased if lease.image in waiting]
    labelled = int(view.labelled.sum()) + len(taken & set(view.pool.images))
    live = journal.live_version(desk.model)
    return Summary(
        now=now,
        model=desk.model,
        project=desk.studies.name(),
        classes=[ClassShown(name=n, index=i, colour=colour_of(i)) for n, i in desk.labels.items()],
        rights=rights_of(user),
        total=len(view.pool),
        labelled=labelled,
        leased=leased,
        skipped=_skipped(desk, waiting - {lease.image for lease in leased}),
        left=len(waiting),
        set_aside=_set_aside(view),
        validation=journal.validation_labels(),
        per_day=_per_day(desk, now),
        effort=_effort(desk, labelled, len(waiting)),
        retraining=_retraining(desk),
        live_version=live.version if live else None,
    )


def rights_of(user: User) -> Rights:
    """What a user may do; everything while the login is off."""
    _, annotator, _, admin = role_names()
    login = settings.MONAI_LABEL_AUTH_ENABLE
    return Rights(
        user=user.username if login else "",
        login=login,
        write=not login or annotator in user.roles,
        admin=not login or admin in user.roles,
    )


def _set_aside(view: View) -> int:
    return int((~view.free & ~view.labelled).sum())


def _skipped(desk: Desk, waiting: set[str]) -> list[SkippedGroup]:
    """Latest skips of the images that still wait, by reason; a reason of an older release counts as "unsure"."""
    groups: dict[str, list[SkippedImage]] = {}
    for skip in desk.journal.last_skips():
        if skip.image in waiting:
            reason = skip.reason if skip.reason in SKIP_REASONS else "unsure"
            groups.setdefault(reason, []).append(SkippedImage(image=skip.image, client=skip.client, ts=skip.ts))
    return [
        SkippedGroup(reason=reason, meaning=meaning, count=len(groups[reason]), images=groups[reason][:_SHOWN])
        for reason, meaning in SKIP_REASONS.items()
        if reason in groups
    ]


def _per_day(desk: Desk, now: float) -> list[Day]:
    found = {day: (labels, images) for day, labels, images in desk.journal.labels_per_day(now - _DAYS * 86400)}
    if not found:
        return []
    first, today = date.fromisoformat(min(found)), date.fromtimestamp(now)
    days = [(first + timedelta(days=n)).isoformat() for n in range(max(0, (today - first).days) + 1)]
    counts = [(day, *found.get(day, (0, 0))) for day in sorted({*days, *found})]
    return [Day(day=day, labels=labels, images=images) for day, labels, images in counts]


def _effort(desk: Desk, labelled: int, left: int) -> Effort:
    found = estimate(common_points(desk), labelled, left)
    seconds = desk.journal.label_seconds(_TIMED)
    minutes = statistics.median(seconds) / 60 if seconds else None
    known = found.labels is not None and minutes is not None
    return Effort(
        labels=found.labels,
        minutes=found.labels * minutes if known else None,
        minutes_per_label=minutes,
        timed=len(seconds),
        plateau=found.plateau,
        versions=found.versions,
        sentence=found.sentence,
        method=METHOD,
    )


def _retraining(desk: Desk) -> RetrainingShown:
    retraining, journal = desk.retraining, desk.journal
    runs = [run for run in journal.runs() if run.model == desk.model]
    fresh, wanted = new_labels(
        journal.submissions(), [r for r in runs if r.status != "running"], retraining.settings.after
    )
    waiting = retraining.waiting_for or "looking at the journal"
    return RetrainingShown(
        enabled=retraining.settings.enabled,
        running=any(run.status == "running" for run in runs),
        waiting_for=waiting if retraining.settings.enabled else "automatic retraining is off: trainings start by hand",
        new_labels=fresh,
        wanted_labels=wanted,
        idle_s=retraining.settings.idle_s,
    )
