"""MONAI Label strategies: take the view, choose, take a lease. Never a forward pass, never a new process."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from lib.activelearning.board import Board, View
from lib.core.policies import DESCRIPTIONS
from lib.core.pool import Situation
from lib.core.select import CONTROL_SHARE, Choice, Policy, next_images
from lib.decisions import decided, hashed_name
from lib.store.records import Pick

logger = logging.getLogger(__name__)

LEASE_S = 30 * 60
"""Nobody else is offered an image for this long after it was served or last used by the one who holds it."""
PINNED = "pinned"
"""Kind of a pick that somebody asked for."""
POOR_IMAGE = "poor image"
"""Kind of a pick of an image that can hardly be judged: only when nothing else is left."""
_ATTEMPTS = 5
_AHEAD = 4
"""Studies that are made ready while the annotator works on the one served."""


class NextImage(Strategy):
    """Serves one study by a policy; a share of the picks is drawn blindly as control.

    Args:
        policy: key of `POLICIES`.
        board: shared by all strategies of a model.
        control_share: share of random control picks, in [0, 1].
    """

    def __init__(self, policy: str, board: Board, control_share: float = CONTROL_SHARE) -> None:
        super().__init__(DESCRIPTIONS[policy])
        self._policy, self._board = policy, board
        self._control_share = 0.0 if policy == "random_control" else control_share

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Lease one study to the client. Returns its id and why it was chosen, or {} when nothing is left."""
        journal, now = self._board.project.journal, time.time()
        client = str(request.get("client_id") or "")
        view = self._board.view(datastore)
        own = journal.own_lease(client, now)
        if own is not None and _offered(own, view) and journal.renew(own, client, LEASE_S, now):
            return self._again(own, view)
        for _ in range(_ATTEMPTS):
            skips_known = journal.last_skip_id()
            picks, left = self._picks(view, client, now)
            if not picks:
                return self._nameless(view, client, now)
            pinned = self._pinned(view, client, now)
            logged = {**picks, **pinned}.__getitem__
            image = journal.lease(
                list(picks), client, LEASE_S, now, logged, pinned.__contains__, skips_known, lambda i: _offered(i, view)
            )
            if image is not None and image not in picks and image not in pinned:
                return self._again(image, view)  # the same annotator asked twice at once
            if image is not None:
                pick = pinned.get(image) or picks[image]
                self._make_ready(datastore, view, client, [other for other in picks if other != image])
                why = PINNED if image in pinned else pick.reason  # the other sentence names a person
                decided("picked", image=image, client=client, model=pick.model, version=pick.version, why=why)
                return self._served(pick, left)
        logger.warning("No study for %s: others took %d shortlists before", hashed_name(client), _ATTEMPTS)
        return {}

    def policy(self, view: View) -> Policy:
        """What stands behind it at the moment."""
        return view.policy(self._policy)

    def forecast(self, view: View, count: int, now: float) -> list[Choice]:
        """The next `count` choices if nothing else happened: each is held by somebody when the one after it is made."""
        situation, _ = self.situation(view, "", now)
        number = self._board.project.journal.last_pick_id() + 1
        chosen: list[Choice] = []
        while len(chosen) < count and (found := self._choose(view, situation, number + len(chosen))[0]):
            chosen.append(found[0])
            place = view.places[found[0].image]
            situation.free[place], situation.seen[place] = False, True
        return chosen

    def _picks(self, view: View, client: str, now: float) -> tuple[dict[str, Pick], int]:
        """Shortlist, best first, and how many studies are left to choose from."""
        situation, later = self.situation(view, client, now)
        left = int(situation.free.sum()) + len(later)
        choices, seed = self._choose(view, situation, self._board.project.journal.last_pick_id() + 1)
        if not choices:
            choices = list(later.values())
        return {choice.image: self._pick(choice, client, view, seed, now) for choice in choices}, left

    def _pinned(self, view: View, client: str, now: float) -> dict[str, Pick]:
        """Pinned studies that may be served."""
        reason = "pinned by {}: wanted before all others"
        return {
            pin.image: self._pick(
                Choice(pin.image, reason.format(pin.client or "somebody"), PINNED), client, view, 0, now
            )
            for pin in self._board.project.journal.pins()
            if pin.image in view.places and view.free[view.places[pin.image]]
        }

    def situation(self, view: View, client: str, now: float) -> tuple[Situation, dict[int, Choice]]:
        """What is taken and done, as arrays of their own; and what comes last, by place.

        Last come free studies that can hardly be judged, then those that this client skipped.
        """
        journal = self._board.project.journal
        free, seen = view.free.copy(), view.labelled.copy()
        skipped = [view.places[i] for i in journal.skipped_for(client) if i in view.places]
        taken = [*(s.image for s in journal.submissions(view.last_submission)), *journal.open_leases(now)]
        places = [view.places[i] for i in taken if i in view.places]
        free[places], seen[places] = False, True
        images, last = view.pool.images, "nothing else is left"
        passed = set(skipped)
        doubtful = {i: what for i, what in view.unfit.items() if free[i] and i not in passed}
        later = {i: Choice(images[i], f"{what}: {last}", POOR_IMAGE) for i, what in doubtful.items()}
        later |= {i: Choice(images[i], f"skipped before: {last}", "skipped") for i in skipped if free[i]}
        free[list(later)], seen[skipped] = False, True
        return Situation(free, seen, view.progress, view.counts, view.labels, view.miss_rate, view.weak), later

    def _choose(self, view: View, situation: Situation, number: int) -> tuple[list[Choice], int]:
        """What request `number` is offered, and the seed behind it."""
        seed = _seed(f"{self._board.project.folder.name}:{self._board.seed}:{self._policy}:{view.version}:{number}")
        rng = np.random.default_rng(seed)
        return next_images(self.policy(view), situation, rng, self._control_share), seed

    def _make_ready(self, datastore: Datastore, view: View, client: str, others: Sequence[str]) -> None:
        """Of studies that must be fetched, have those fetched now that come next.

        The first is the answer to the next request, unless a label or a model changes it: the journal knows of this one
        already, and the seed of the next is fixed. Then `others`, the rest of the shortlist.
        """
        if getattr(datastore, "fetches", False):
            coming, _ = self._picks(view, client, time.time())
            datastore.prefetch(list(dict.fromkeys([*list(coming)[:1], *others]))[:_AHEAD])

    def _pick(self, choice: Choice, client: str, view: View, seed: int, now: float) -> Pick:
        details = {
            "kind": choice.kind,
            "stratum": choice.stratum,
            "score": round(choice.score, 4),
            "terms": {name: round(value, 4) for name, value in choice.terms.items()},
            **choice.detail,
        }
        name = self._board.name
        return Pick(0, choice.image, client, name, view.version, choice.reason, now, self._policy, seed, details)

    def _served(self, pick: Pick, left: int) -> dict[str, Any]:
        return {
            "id": pick.image,
            "reason": pick.reason,
            "kind": pick.details.get("kind", ""),
            "stratum": pick.details.get("stratum", ""),
            "score": pick.details.get("score"),
            "terms": pick.details.get("terms", {}),
            "model_version": pick.version,
            "left": left,
            "why": {"strategy": pick.strategy, "seed": pick.seed, **pick.details},
        }

    def _again(self, image: str, view: View) -> dict[str, Any]:
        """The reply about an image that the annotator holds already."""
        pick = self._board.project.journal.last_pick(image)
        if pick is None:
            pick = Pick(0, image, "", self._board.name, view.version, "served before", 0.0)
        return self._served(pick, int(view.free.sum()))

    def _nameless(self, view: View, client: str, now: float) -> dict[str, Any]:
        """When all is held, a client without a name gets again what was served to nobody in particular first."""
        if client:
            return {}
        leases = self._board.project.journal.leases(now)
        held = (
            x.image for x in leases if x.client == "" and x.image in view.places and view.free[view.places[x.image]]
        )
        image = next(held, None)
        return {} if image is None else self._again(image, view)


def _offered(image: str, view: View) -> bool:
    """Whether an image may be served at all: known, unlabelled and of no validation patient."""
    return image in view.places and bool(view.free[view.places[image]])


def _seed(text: str) -> int:
    """The same project, model and request number choose alike; below 2 ** 63, as SQLite stores it."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
