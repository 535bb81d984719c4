"""Which image next: pure functions from scores to an order of preference, best first, each with its reason.

With a teacher: `choose_order` (active-learning specification 6.5 and 6.6). Before there is one: `coverage.cold_order`.
Nothing is read or written here, and all chance comes from the generator passed in: the same seed gives the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

_SMALLEST_BETA = 0.5
_BETA_GROWTH = 8.0
"""Selection sharpness beta grows from 0.5 at the first label to 0.5 * 8 at the last of the budget."""
_SHORTLIST_DIVISOR = 4
"""A shortlist is at most this part of its queue; in a small pool the score would not matter otherwise."""


@dataclass(frozen=True)
class ScoredImage:
    """Terms (high = low contrast) of one image in a stratum, "class/present" or "class/absent"; `embedding` D float."""

    image: str
    stratum: str
    terms: Mapping[str, float]
    embedding: np.ndarray | None = None


@dataclass(frozen=True)
class Choice:
    """An image, why it was chosen (in plain words), and the numbers behind that."""

    image: str
    reason: str
    terms: Mapping[str, float]
    score: float


def rank_score(scores: Sequence[ScoredImage]) -> dict[str, float]:
    """Score in (0, 1) per image: the mean of its terms' ranks within the stratum; over several strata the highest.

    Ranks are (position + 1/2) / n, ascending, ties averaged: they remove what differs between teachers and modalities.

    Examples:
        >>> margins = {"a": 0.9, "b": 0.1}
        >>> rank_score([ScoredImage(image, "polyp/present", {"margin": value}) for image, value in margins.items()])
        {'a': 0.75, 'b': 0.25}
    """
    best: dict[str, float] = {}
    for entry, score in zip(scores, _entry_scores(scores), strict=True):
        best[entry.image] = max(best.get(entry.image, 0.0), float(score))
    return best


def choose_order(
    scored: Sequence[ScoredImage],
    labelled_embeddings: Sequence[np.ndarray] | np.ndarray,
    leased_embeddings: Sequence[np.ndarray] | np.ndarray,
    rng: np.random.Generator,
    progress: float,
    absent_share: float = 0.25,
    shortlist: int = 50,
    control_share: float = 0.1,
) -> list[Choice]:
    """All images in the order in which they should be served.

    Two queues, images where a class is predicted and images where one is not, take turns at random. Within a queue the
    key is `-ln(rank) + Gumbel / beta`, so that P(first) is proportional to `rank ** -beta`. Of the best keys the image
    most unlike what is labelled or being labelled comes first. In a share of the calls the first is uniformly random.

    Args:
        scored: One entry per unlabelled image and class, all by the same teacher; the order does not matter.
        labelled_embeddings: M of them, each D float, by the same teacher; may be empty.
        leased_embeddings: Same, of the images that annotators hold now.
        rng: Source of all chance.
        progress: Share of the labelling budget that is used, in [0, 1]; values outside are clipped.
        absent_share: Share of turns for images where a class was not predicted, in [0, 1].
        shortlist: How many of the best keys compete for being different; at most a quarter of the queue.
        control_share: Share of calls whose first image is the random control, in [0, 1].

    Returns:
        Each image once, best first.
    """
    _check_share("absent_share", absent_share)
    _check_share("control_share", control_share)
    if not scored:
        return []
    entries = sorted(scored, key=lambda entry: (entry.image, entry.stratum))
    scores = _entry_scores(entries)
    above = _shares_below(entries, scores)
    is_control = rng.random() < control_share
    control = str(rng.choice(sorted({entry.image for entry in entries})))

    beta = _SMALLEST_BETA * _BETA_GROWTH ** float(np.clip(progress, 0.0, 1.0))
    seen = [np.asarray(vector, dtype=np.float64) for vector in (*labelled_embeddings, *leased_embeddings)]
    queues: dict[bool, list[Choice]] = {}
    for absent in (False, True):
        members = [i for i, entry in enumerate(entries) if _is_absent(entry.stratum) == absent]
        choices = [
            Choice(entries[i].image, _reason(entries[i], above[i]), entries[i].terms, float(scores[i])) for i in members
        ]
        choices, vectors = _best_per_image(choices, [entries[i].embedding for i in members])
        queues[absent] = _queue_order(choices, vectors, seen, rng, beta, shortlist)

    order = _take_turns(queues[False], queues[True], absent_share, rng)
    return _with_control_first(order, control) if is_control else order


def _entry_scores(entries: Sequence[ScoredImage]) -> np.ndarray:
    """Mean rank of the terms of each entry within its stratum (N float)."""
    scores = np.zeros(len(entries))
    for members in _by_stratum(entries):
        names = list(entries[members[0]].terms)
        table = np.array([_term_values(entries[i], names) for i in members], dtype=np.float64)
        scores[members] = np.mean([ranks(column) for column in table.T], axis=0)
    return scores


def _by_stratum(entries: Sequence[ScoredImage]) -> list[list[int]]:
    """Positions of the entries of each stratum."""
    positions = sorted(range(len(entries)), key=lambda i: entries[i].stratum)
    return [list(members) for _, members in groupby(positions, key=lambda i: entries[i].stratum)]


def _term_values(entry: ScoredImage, names: Sequence[str]) -> list[float]:
    values = [float(entry.terms.get(name, np.nan)) for name in names]
    if not names or set(entry.terms) != set(names) or not np.isfinite(values).all():
        raise ValueError(
            f"expected {entry.image} to have the finite terms {', '.join(names) or '(at least one)'} like the rest of "
            f"'{entry.stratum}', but got {dict(entry.terms)}; rank images of one model version only"
        )
    return values


def ranks(values: np.ndarray) -> np.ndarray:
    """(rank + 1/2) / n ascending with ties averaged (N float in (0, 1))."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts + (counts - 1) / 2
    return (middle[place] + 0.5) / len(values)


def _shares_below(entries: Sequence[ScoredImage], scores: np.ndarray) -> np.ndarray:
    """Share of the other entries of the stratum that have a lower score (N float in [0, 1])."""
    shares = np.zeros(len(entries))
    for members in _by_stratum(entries):
        own = np.round(scores[members], 9)
        shares[members] = np.searchsorted(np.sort(own), own) / max(1, len(members) - 1)
    return shares


def _best_per_image(
    choices: Sequence[Choice], vectors: Sequence[np.ndarray | None]
) -> tuple[list[Choice], list[np.ndarray | None]]:
    """Of each image in several strata of a queue, the entry with the highest score."""
    best: dict[str, int] = {}
    for i, choice in enumerate(choices):
        if choice.image not in best or choice.score > choices[best[choice.image]].score:
            best[choice.image] = i
    return [choices[i] for i in best.values()], [vectors[i] for i in best.values()]


def _queue_order(
    choices: Sequence[Choice],
    vectors: Sequence[np.ndarray | None],
    seen: Sequence[np.ndarray],
    rng: np.random.Generator,
    beta: float,
    shortlist: int,
) -> list[Choice]:
    """One queue by noisy rank; of its shortlist the image farthest from everything `seen` comes first."""
    count = len(choices)
    if count == 0:
        return []
    rank = (1.0 - ranks(np.array([choice.score for choice in choices]))) * count + 0.5  # 1 is the best
    key = -np.log(rank) + rng.gumbel(size=count) / beta
    order = [int(i) for i in np.argsort(-key, kind="stable")]
    candidates = order[: max(1, min(shortlist, count // _SHORTLIST_DIVISOR))]
    first = _farthest(candidates, vectors, seen)
    ordered = [choices[i] for i in order if i != first]
    head = choices[first]
    if first != order[0]:
        why = f"{head.reason}; of the {len(candidates)} best the most unlike the labelled images"
        head = Choice(head.image, why, head.terms, head.score)
    return [head, *ordered]


def _farthest(candidates: Sequence[int], vectors: Sequence[np.ndarray | None], seen: Sequence[np.ndarray]) -> int:
    """The candidate with the largest cosine distance to its nearest in `seen`; the first if nothing can be compared."""
    known = [(i, vector) for i in candidates if (vector := vectors[i]) is not None]
    if not known or not seen:
        return candidates[0]
    own, others = _unit(stack([vector for _, vector in known])), _unit(stack(seen))
    if own.shape[1] != others.shape[1]:
        raise ValueError(
            f"expected all embeddings to have the same length, but got {own.shape[1]} and {others.shape[1]}; "
            "compare embeddings of one model version only"
        )
    nearest = 1.0 - (own @ others.T).max(axis=1)
    return known[int(np.argmax(np.round(nearest, 9)))][0]


def _take_turns(
    present: Sequence[Choice], absent: Sequence[Choice], absent_share: float, rng: np.random.Generator
) -> list[Choice]:
    """Merge two queues; each turn goes to `absent` with its share; an image in both comes once."""
    turns = rng.random(len(present) + len(absent)) < absent_share
    merged: dict[str, Choice] = {}
    i = j = 0
    for absent_turn in turns:
        if j < len(absent) and (absent_turn or i == len(present)):
            merged.setdefault(absent[j].image, absent[j])
            j += 1
        else:
            merged.setdefault(present[i].image, present[i])
            i += 1
    return list(merged.values())


def _with_control_first(order: Sequence[Choice], image: str) -> list[Choice]:
    control = next(choice for choice in order if choice.image == image)
    tagged = Choice(
        image, "random control: drawn blindly, to measure what choosing brings", control.terms, control.score
    )
    return [tagged, *(choice for choice in order if choice.image != image)]


def _is_absent(stratum: str) -> bool:
    return stratum.rpartition("/")[2] == "absent"


def _reason(entry: ScoredImage, share_below: float) -> str:
    """Why an image is worth labelling, e.g. "low contrast: ... (margin 0.55, feature contrast 0.72)"."""
    name = entry.stratum.rpartition("/")[0] or entry.stratum
    numbers = ", ".join(f"{term.replace('_', ' ')} {value:.2f}" for term, value in entry.terms.items())
    absent = _is_absent(entry.stratum)
    if share_below < 0.5:
        what = f"no {name} found" if absent else f"a clear {name} border"
        return f"variety: not all images should be hard ones; {what} ({numbers})"
    if absent:
        text = f"possible miss: no {name} found, but a missed one is likelier than in {percent(share_below)} of such images"
    else:
        text = f"low contrast: the {name} border is less certain than in {percent(share_below)} of the other images"
    return f"{text} ({numbers})"


def percent(share: float) -> str:
    """A share in [0, 1] for a sentence, e.g. 63 %."""
    return f"{100 * share:.0f} %"


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"expected {name} to be in [0, 1], but got {value}; 0.25 means every fourth turn")


def stack(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """N vectors as `N D` float64."""
    lengths = sorted({int(np.size(vector)) for vector in vectors})
    if len(lengths) != 1:
        raise ValueError(
            f"expected all embeddings to have the same length, but got {lengths}; compare embeddings of one source only"
        )
    table = np.stack([np.asarray(vector, dtype=np.float64).ravel() for vector in vectors])
    if not np.isfinite(table).all():
        raise ValueError("expected embeddings to be finite, but got NaN or infinity; leave those images out")
    return table


def _unit(table: np.ndarray) -> np.ndarray:
    """Rows of length 1; a zero row stays zero."""
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
