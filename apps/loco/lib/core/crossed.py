"""Two networks learn from labels and from each other's confident labels, after CPS (Chen et al., arXiv 2106.01226)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lib.core.batch import Batch
from lib.core.losses import PixelLoss, cross_entropy, supervised_loss
from lib.core.pseudo import confident_label, passed


@dataclass(frozen=True)
class Crossed:
    """`loss` scalar with a graph and its terms; `labels` that each network gives, `B H W [D]`, 255 where it is unsure."""

    loss: Tensor
    logs: dict[str, Tensor | float]
    labels: tuple[Tensor, Tensor]


def crossed(
    first: Tensor,
    second: Tensor,
    batch: Batch,
    confidence: float,
    weight: float,
    sup: PixelLoss = supervised_loss,
) -> Crossed:
    """`SUP_1 + SUP_2 + w [CE(p_1, y_2) + CE(p_2, y_1)]`, y the labels of which a network is confident.

    Args:
        first: logits `B K H W [D]` of network 1, labelled images first, then the unlabelled ones.
        second: those of network 2.
        batch: its labels and its ignore map.
        confidence: probability from which a label counts.
        weight: w.
        sup: loss of labelled images.
    """
    count = len(batch.label_l)
    labelled = [sup(z[:count], batch.label_l) for z in (first, second)]
    labels = tuple(confident_label(z[count:], batch.ignore_u, confidence) for z in (first, second))
    cross = cross_entropy(first[count:], labels[1]) + cross_entropy(second[count:], labels[0])
    logs = {
        "loss_sup": labelled[0],
        "loss_sup_2": labelled[1],
        "loss_cross": cross,
        "weight": weight,
        "mask_ratio": passed(labels[1], batch.ignore_u),
    }
    return Crossed(sum(labelled) + weight * cross, logs, labels)
