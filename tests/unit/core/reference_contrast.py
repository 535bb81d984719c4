"""LoCo's contrast loss written down step by step as specified: full resolution, loops and full sorts. Slow on purpose.

Independent of `lib.core.contrast`: shares nothing with it but the options. Like the published code it makes the projection
at full resolution and all 64 similarity maps of both pools, with a graph that nothing uses but that stays until the
selection is over. The copies (`clone`) of the published code are left out.
"""

from itertools import product

import torch
import torch.nn.functional as F

from lib.core.spec import ContrastSpec

IGNORED = 255


class TieError(Exception):
    """The cut falls between equal scores: the specification leaves open which pixel is kept.

    Common in BCE, where two pixels that differ most from each other have the same score.
    """


def nearest_offsets(dims: int) -> list[tuple[int, ...]]:
    reach = range(-6, 7)
    grid = [o for o in product(reach, repeat=dims) if o != (0,) * dims]
    grid.sort()
    grid.sort(key=lambda o: sum(i * i for i in o))
    return grid[:64]


def as_rows(z):
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def extended(x, mode):
    """`x` (B C H W [D]) with 4 more pixels at each side; mode 'zero' or 'replicate'."""
    sides = (4, 4) * (x.ndim - 2)
    return F.pad(x.float(), sides, mode="constant" if mode == "zero" else mode)


def shifted(x, offset):
    """Value of the neighbour at `offset` for each pixel of the map that was `extended` to `x`."""
    for axis, step in enumerate(offset, start=2):
        x = x.narrow(axis, 4 + step, x.shape[axis] - 8)
    return x


def boundary_pixels(label, spec):
    found = torch.zeros_like(label, dtype=torch.bool)
    wide = extended(label[:, None], spec.border)
    for offset in nearest_offsets(label.ndim - 1):
        other = shifted(wide, offset)[:, 0]
        differs = other != label
        if not spec.ignored_is_boundary:
            differs = differs & (other != IGNORED)
        found = found | differs
    return found


def smallest_neighbour_similarity(z):
    unit = F.normalize(z, dim=1)
    wide = extended(unit, "replicate")
    similarity = [(unit * shifted(wide, offset)).sum(1) for offset in nearest_offsets(z.ndim - 2)]
    return torch.stack(similarity).amin(0)


def keep_first(scores, count, refuse_ties, descending=False):
    values, order = scores.sort(descending=descending)
    if refuse_ties and 0 < count < len(values) and abs(values[count] - values[count - 1]) < 1e-6:
        raise TieError
    return order[:count]


def choose_ice(rows, labels, pool_size, prototypes, rate, refuse_ties):
    quota = int(pool_size * rate / len(prototypes))
    features, tags = [], []
    for k, prototype in prototypes.items():
        members = rows[labels == k]
        with torch.no_grad():
            similarity = F.cosine_similarity(members, prototype[None], dim=1)
            order = keep_first(similarity, quota, refuse_ties)
        features.append(members[order])
        tags.append(torch.full((len(order),), k))
    return features, tags


def choose_bce(pools, classes, spec, refuse_ties):
    """As published: the similarities of both pools, each with its graph, are there until all pixels are chosen."""
    prepared = []
    for z, label in pools:
        boundary = boundary_pixels(label, spec).flatten()
        similarity = smallest_neighbour_similarity(z).flatten()[boundary]
        prepared.append((similarity, as_rows(z)[boundary], label.flatten()[boundary]))
    features, tags = [], []
    for similarity, rows, label in prepared:
        for c in range(1, classes):
            mask = label == c
            count = int(int(mask.sum()) * spec.bce_rate)
            order = keep_first(similarity[mask], count, refuse_ties, descending=spec.bce_keep == "most_similar")
            features.append(rows[mask][order])
            tags.append(torch.full((len(order),), c))
    return features, tags


def info_nce(prototypes, x, y, temperature):
    x = F.normalize(x, dim=1)
    total = 0.0
    for k, prototype in prototypes.items():
        cosine = x @ F.normalize(prototype, dim=0)
        s = cosine / temperature
        s = s - s.max().detach()
        negatives = s[y != k].exp().sum()
        positives = s[(y == k) & (1 - cosine > 1e-6)]
        terms = torch.log(positives.exp() + negatives) - positives
        total = total + terms.sum() / (len(positives) + 1e-6)
    return total / len(prototypes)


def reference_loss(
    projection_l, label_l, projection_u, logits_u, ignore_u, threshold, spec: ContrastSpec, refuse_ties=False
):
    size = tuple(label_l.shape[1:])
    mode = "bilinear" if len(size) == 2 else "trilinear"
    if tuple(projection_l.shape[2:]) != size:
        projection_l = F.interpolate(projection_l, size, mode=mode, align_corners=True)
        projection_u = F.interpolate(projection_u, size, mode=mode, align_corners=True)
    classes = logits_u.shape[1]
    label_l = label_l.long()
    rows_l, flat_l = as_rows(projection_l), label_l.flatten()
    prototypes = {k: rows_l[flat_l == k].mean(0) for k in range(classes) if (flat_l == k).any()}

    confidence, pseudo = logits_u.detach().softmax(1).max(1)
    if spec.fixed_threshold is not None:
        threshold = torch.full((classes,), spec.fixed_threshold)
    padded = torch.zeros_like(pseudo, dtype=torch.bool) if ignore_u is None else ignore_u == IGNORED
    confident = (confidence > threshold[pseudo]) & ~padded
    pseudo_bce = pseudo.clone()
    pseudo_bce[confidence <= threshold[pseudo]] = IGNORED
    if spec.bce_respects_padding:
        pseudo_bce[padded] = IGNORED

    features, tags = [], []
    if spec.ice and prototypes:
        keep = confident.flatten()
        rows_u = as_rows(projection_u)[keep]
        pools = [(rows_l, flat_l, flat_l.numel()), (rows_u, pseudo.flatten()[keep], int(keep.sum()))]
        for rows, labels, count in pools:
            f, t = choose_ice(rows, labels, count, prototypes, spec.ice_rate, refuse_ties)
            features += f
            tags += t
    if spec.bce and prototypes:
        f, t = choose_bce([(projection_l, label_l), (projection_u, pseudo_bce)], classes, spec, refuse_ties)
        features += f
        tags += t
    if not features or sum(map(len, features)) == 0:
        return 0 * (projection_l.mean() + projection_u.mean())
    return info_nce(prototypes, torch.cat(features), torch.cat(tags), spec.temperature)
