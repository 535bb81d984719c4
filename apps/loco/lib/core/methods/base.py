"""What a training method is: one `step` that turns a batch into a loss. No I/O, testable in five lines.

A method that needs more than a student, its teacher and one strong view says so in small declared attributes, which the
trainer, the loader and the server read; the training loop is the same for all:

- `views`: which views of the images it wants (`batch.Views`); where each image comes from is in `batch.origin_l/u`.
- `kinds` and `check`: on which studies it works. What it needs is said in one sentence before training starts.
- `second`: a second network, handed to the constructor; only the first one is published.
- `prepare` and `parts`: everything with weights or running state beyond student and teacher: the second network, heads,
  memories, frozen labellers. They are moved, optimised (what requires a gradient), saved and restored with the method.
- `stage`: where the run begins again with a fresh network, optimiser and rate.
- `pretraining`: share of the run in which `pretraining_step` is called instead of `unlabelled_step`.
- `after_step`: how the averages move, once the optimiser has stepped.

Features of several depths and perturbed passes come from the network itself: `NetworkOutput.maps` and `.feature`, and
`student.encode` and `student.decode` for a pass that is changed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lib.core.batch import Batch, Views
from lib.core.cases import Record
from lib.core.losses import LABELLED_LOSSES, PixelLoss, supervised_loss
from lib.core.networks import ENCODER_RATE
from lib.core.parts import in_two_parts
from lib.core.schedules import sigmoid_rampup
from lib.core.spec import KINDS, Kind, MethodSpec, SpecError, TaskSpec
from lib.core.spec_ranges import out_of_range
from lib.core.teacher import StudentTeacher


@dataclass
class StepOutput:
    """`loss` scalar with graph; `logits_l` B K H W [D] of the labelled images, detached; `logs` scalars to follow.

    `logits_l` is None where the network sees labelled images only in mixtures. `logs` always holds every loss term and
    `mask_ratio`, the share of valid unlabelled pixels that passed the filter.
    """

    loss: Tensor
    logits_l: Tensor | None
    logs: dict[str, Tensor | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What is followed has no graph; methods hand it over as it is."""
        self.logits_l = None if self.logits_l is None else self.logits_l.detach()
        self.logs = {name: v.detach() if isinstance(v, Tensor) else v for name, v in self.logs.items()}


class Method:
    """Base of all methods; subclasses write `unlabelled_step`, name themselves and declare what they need."""

    name: str
    """Key in `METHODS` and word after `--conf method`."""
    title: str
    """Name for people."""
    reconstruction: bool = False
    """True: rebuilt from little public text; said wherever the method is described."""
    kinds: tuple[Kind, ...] = KINDS
    """Kinds of model that it can train."""
    kinds_reason: str = ""
    """Half a sentence: why not the others."""
    views: Views = Views()
    second: Literal["twin", "slices"] | None = None
    """A second network: `twin`, of the same specification, whose random weights are others but whose pretrained encoder (2D) is
    the same; `slices`, a 2D one for volumes."""

    def __init__(
        self,
        network: StudentTeacher,
        spec: MethodSpec,
        classes: int,
        total_steps: int,
        seed: int = 0,
        second: nn.Module | None = None,
    ) -> None:
        """`second` is given exactly when the class declares one; it is found again as `self.parts["second"]`."""
        if (second is None) is not (self.second is None):
            raise ValueError(f"expected a second network exactly for a method that declares one, but {self.name!r} got "
                             f"{type(second).__name__}; use `methods.second_network`")  # fmt: skip
        self.network, self.spec, self.classes, self.total_steps, self._seed = network, spec, classes, total_steps, seed
        self.parts = nn.ModuleDict({"second": second} if second is not None else {})
        self.prepare()

    several_processes: bool = False
    """True: two processes are known to train as one. False: it reads parts of the networks that they do not exchange."""

    @classmethod
    def check(cls, spec: TaskSpec, records: Sequence[Record] = ()) -> None:
        """Whether the method can train this model; called when the server starts and before each training.

        Args:
            spec: what would be trained.
            records: the studies to train on; empty when they are not known yet. Subclasses may look at them.

        Raises:
            SpecError: it cannot; one sentence says what it needs.
        """
        if spec.data.kind not in cls.kinds:
            raise SpecError(
                f"expected a {' or '.join(cls.kinds)} model for the method {cls.name}, which {cls.kinds_reason}, "
                f"but this is a {spec.data.kind} model; choose another method"
            )
        wrong = out_of_range(spec.method)
        if wrong:
            raise SpecError(f"expected the option {wrong}; change it in --conf options")

    @classmethod
    def check_processes(cls, count: int) -> None:
        """Whether `count` processes may train together. Raises `SpecError` with one sentence when they may not."""
        if count > 1 and not cls.several_processes:
            raise SpecError(
                f"expected one process for the method {cls.name}, but got {count}; "
                "train it on one device, or choose loco"
            )

    def prepare(self) -> None:
        """Add to `parts` what the method brings along, when it is made. Here: nothing."""

    @property
    def pretraining(self) -> float:
        """Share of the run, from its start, that `pretraining_step` has."""
        return 0.0

    def stage(self, step_no: int) -> tuple[int, int]:
        """First step and end of the training that `step_no` belongs to: the rate falls over it, and the optimiser begins with it.

        One is the whole run, unless the method begins with a fresh network again on the way.
        """
        return 0, self.total_steps

    def step(self, batch: Batch, step_no: int) -> StepOutput:
        """Loss of one batch; `step_no` counts from 0. Without unlabelled images every method is plain supervision."""
        if batch.image_u_weak is None or not self.views.unlabelled:
            return self.supervised_step(batch)
        if step_no < self.pretraining_steps:
            return self.pretraining_step(batch, step_no)
        if step_no == self.pretraining_steps > 0:
            self.pretraining_done()
        return self.unlabelled_step(batch, step_no)

    def supervised_step(self, batch: Batch) -> StepOutput:
        """The loss on labels of the labelled images alone."""
        logits = self.network(batch.image_l).logits
        loss = self.labelled_loss(logits, batch.label_l)
        return StepOutput(loss, logits, {"loss_sup": loss, "mask_ratio": 0.0})

    def labelled_loss(self, logits: Tensor, label: Tensor, own: PixelLoss = supervised_loss) -> Tensor:
        """`SUP` of the methods' formulas, for logits `B K H W [D]` and labels `B H W [D]`.

        It is the loss that `spec.labelled_loss` names, or the published one of the method, `own`.
        """
        return {**LABELLED_LOSSES, "own": own}[self.spec.labelled_loss](logits, label)

    def in_parts(self, call: Callable[[Any], Any], whole: Any, labelled: int) -> Any:
        """`call(whole)`, a network or its `encode` or `decode`, where the first `labelled` rows are of labelled images.

        Unless `spec.batch_statistics` is joint, no loss moves the images of the other part (`parts.in_two_parts`).
        """
        return call(whole) if self.spec.batch_statistics == "joint" else in_two_parts(call, whole, labelled)

    def pretraining_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Loss of a batch with both parts during pre-training. Here: the labelled part alone."""
        return self.supervised_step(batch)

    def pretraining_done(self) -> None:
        """Called once, before the first step after pre-training. Here: the teacher starts as the student."""
        self.network.teacher.load_state_dict(self.network.student.state_dict())

    def unlabelled_step(self, batch: Batch, step_no: int) -> StepOutput:
        """Loss of a batch with both parts; each method names its source. Here: the labelled part alone."""
        return self.supervised_step(batch)

    def after_step(self, step_no: int, decay: float) -> None:
        """Move the averages after the optimiser's step `step_no`; `decay` is the run's."""
        self.network.update_teacher(step_no, decay)

    @property
    def pretraining_steps(self) -> int:
        """Number of steps of the pre-training."""
        return int(self.pretraining * self.total_steps)

    def ramp(self, step_no: int) -> float:
        """Rises from 0.0067 to 1 over `spec.ramp_share` of the steps after pre-training."""
        first = self.pretraining_steps
        return sigmoid_rampup(step_no - first, self.spec.ramp_share * (self.total_steps - first))

    def rng(self, step_no: int) -> np.random.Generator:
        """Random numbers of this step: the same for the same seed and step, in any process."""
        return np.random.default_rng([self._seed, step_no])

    def generator(self, step_no: int, device: torch.device) -> torch.Generator:
        """The same for random tensors; they differ between kinds of device."""
        return torch.Generator(device).manual_seed(int(self.rng(step_no).integers(2**62)))

    def to(self, device: torch.device) -> Method:
        """Move `parts`; the networks are where the caller put them."""
        self.parts.to(device)
        return self

    def parameter_groups(self, learning_rate: float, encoder_rate: float = ENCODER_RATE) -> list[dict[str, Any]]:
        """Optimiser groups of `parts`: those of a second network, as it makes them, and the rest."""
        own = self.parts["second"].parameter_groups(learning_rate, encoder_rate) if self.second else []
        groups = [{**g, "name": f"second {g['name']}"} for g in own]
        rest = [p for k, m in self.parts.items() if k != "second" for p in m.parameters() if p.requires_grad]
        return [*groups, {"name": "heads", "params": rest, "lr": learning_rate}] if rest else groups

    def thresholds(self) -> Tensor | None:
        """Confidence thresholds per class (K) that scoring uses, if the method learns any."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """State beyond student and teacher, for the checkpoint: plain values and tensors."""
        return {"parts": self.parts.state_dict()} if len(self.parts) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        if len(self.parts):
            self.parts.load_state_dict(state["parts"])
