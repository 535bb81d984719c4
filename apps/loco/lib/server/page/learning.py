"""Is it learning: Dice of the versions on the same validation cases, and the training that runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from monailabel.utils.async_tasks.utils import processes, tasks

from lib.core.methods import note
from lib.core.validate import MIN_CASES
from lib.server.page.desk import Desk
from lib.server.page.models import ClassDice, Learning, LossPoint, TrainingRun, VersionPoint
from lib.store.records import Run, Version

Cases = Mapping[str, Mapping[str, float]]
_ENDED = ("DONE", "ERROR", "STOPPED")


def learning(desk: Desk) -> Learning:
    """The second panel."""
    versions = desk.journal.versions(desk.model)
    common = common_cases(versions)
    counts, run = desk.journal.label_counts(), desk.journal.last_run(desk.model)
    points = [_point(desk, version, common, counts) for version in versions]
    compared = sum(point.comparable for point in points)
    return Learning(
        classes=list(desk.labels),
        common_cases=len(common),
        sentence=_sentence(compared, len(points), len(common)),
        versions=points,
        training=_training(run) if run else None,
        starting=is_starting(run),
    )


def common_cases(versions: Sequence[Version]) -> frozenset[str]:
    """Validation cases on which the newest version and as many older ones as possible were measured.

    Cases only become more with time, so the older a version, the fewer cases it shares with the newest. Versions that share
    fewer than `MIN_CASES`, or fewer than half of them, are left out. Empty when there are no two versions to compare.
    """
    measured = [frozenset(cases_of(v)) for v in versions if cases_of(v)]
    if not measured:
        return frozenset()
    common, compared = measured[-1], 1
    least = max(MIN_CASES, len(common) / 2)
    for cases in reversed(measured[:-1]):
        if len(common & cases) >= least:
            common, compared = common & cases, compared + 1
    return common if compared > 1 else frozenset()


def common_points(desk: Desk) -> list[tuple[int, float]]:
    """(labels, mean Dice on the common cases) of the comparable versions whose number of labels is known."""
    versions = desk.journal.versions(desk.model)
    common, counts = common_cases(versions), desk.journal.label_counts()
    return [
        (counts[v.run_id], statistics.fmean(_means(_on(cases_of(v), common))))
        for v in versions
        if v.run_id in counts and common and common <= cases_of(v).keys()
    ]


def cases_of(version: Version) -> Cases:
    """Dice by case and class, as it was measured before the version was published."""
    return version.details.get("cases") or {}


def is_starting(run: Run | None) -> bool:
    """A training is wanted, and no run of it is open yet."""
    asked = bool(processes("train")) or any(task["status"] not in _ENDED for task in tasks("train"))
    return asked and (run is None or run.status != "running")


def _point(desk: Desk, version: Version, common: frozenset[str], counts: Mapping[int, int]) -> VersionPoint:
    own = cases_of(version)
    comparable = bool(common) and common <= own.keys()
    cases = _on(own, common) if comparable else own
    means = _means(cases)
    run = desk.journal.run(version.run_id) if version.run_id is not None else None
    method = str(run.progress.get("method", "")) if run else ""
    return VersionPoint(
        version=version.version,
        ts=version.ts,
        labels=counts.get(version.run_id) if version.run_id is not None else None,
        method=method,
        method_note=note(method),
        live=version.live,
        comparable=comparable,
        dice=statistics.fmean(means) if means else version.dice,
        sd=_sd(means) if means else None,
        cases=len(cases) or version.cases,
        per_class={
            name: ClassDice(mean=statistics.fmean(values), sd=_sd(values), cases=len(values))
            for name in desk.labels
            if (values := [float(c[name]) for c in cases.values() if c.get(name) is not None])
        },
    )


def _sentence(compared: int, versions: int, cases: int) -> str:
    if not versions:
        return "No version yet: the first training makes it."
    if compared < 2:
        return (
            f"Nothing to compare yet: it takes two versions that were measured on at least {MIN_CASES} validation cases "
            "they have in common."
        )
    others = versions - compared
    noun = "other version was" if others == 1 else "other versions were"
    rest = f"; {others} {noun} not measured on all of these" if others else ""
    return f"{compared} versions on the same {cases} validation cases{rest}."


def _training(run: Run) -> TrainingRun:
    found = run.progress
    latest = _numbers((found.get("train") or {}).get("metrics") or {})
    left, method = _number(found.get("seconds_left")), str(found.get("method", ""))
    return TrainingRun(
        run=run.id,
        status=run.status,
        reason=run.reason,
        detail=run.detail,
        started=run.started,
        updated=run.updated,
        ended=run.ended,
        method=method,
        method_note=note(method),
        network=str(found.get("network", "")),
        epoch=int(found.get("epoch") or 0),
        epochs=int(found.get("total_epochs") or 0),
        step=int(found.get("step") or 0),
        steps=int(found.get("total_steps") or 0),
        seconds_left=left if run.status == "running" else None,
        labelled=int(found.get("labelled") or 0),
        unlabelled=int(found.get("unlabelled") or 0),
        validation=int(found.get("validation") or 0),
        best_dice=_number(found.get("best_metric")),
        terms={name: value for name, value in latest.items() if name != "mask_ratio"},
        mask_ratio=latest.get("mask_ratio"),
        thresholds={k: v for k, v in _numbers(found.get("thresholds") or {}).items() if v is not None},
        history=[
            LossPoint(step=int(p["step"]), terms=_numbers({k: v for k, v in p.items() if k != "step"}))
            for p in found.get("history") or []
        ],
    )


def _on(cases: Cases, common: frozenset[str]) -> Cases:
    return {image: cases[image] for image in sorted(common)}


def _means(cases: Cases) -> list[float]:
    """Mean over the classes of each case."""
    return [
        statistics.fmean(values) for case in cases.values() if (values := [v for v in case.values() if v is not None])
    ]


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {str(name): _number(value) for name, value in values.items()}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
