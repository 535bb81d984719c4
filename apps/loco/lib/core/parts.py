"""A pass in parts: labelled and unlabelled images through one network, each with batch statistics of its own.

In one pass they share the statistics of BatchNorm, through which unlabelled images move the loss on labelled ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def apart(call: Callable[[Any], Any], whole: Any, count: int) -> Any:
    """`call` of the first `count` rows and of the others, joined again; one call where either has none.

    Args:
        call: a network, or its `encode` or `decode`.
        whole: what it takes: a tensor `B ...` or a sequence of such.
        count: rows of the first part.

    Returns:
        What `call(whole)` would: tensors `B ...`, bare, in sequences or in dataclasses.
    """
    rows = len(whole) if isinstance(whole, Tensor) else len(whole[0])
    if not 0 < count < rows:
        return call(whole)
    return _joined([call(_rows(whole, slice(count))), call(_rows(whole, slice(count, None)))])


def _rows(value: Any, part: slice) -> Any:
    return value[part] if isinstance(value, Tensor) else [_rows(v, part) for v in value]


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, (list, tuple)):
        return [_joined(each) for each in zip(*values, strict=True)]
    if dataclasses.is_dataclass(first):
        fields = (f.name for f in dataclasses.fields(first))
        return dataclasses.replace(first, **{name: _joined([getattr(v, name) for v in values]) for name in fields})
    return first
