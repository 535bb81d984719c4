"""Which numbers a method can work with, said where they are declared: `passes: int = within(8, 1)`."""

from __future__ import annotations

import math
from dataclasses import field, fields, is_dataclass
from typing import Any

SMALLEST = 1e-3
"""Of what is divided by, as a temperature; and 1 less this is the largest share that may be dropped."""


def within(default: Any, low: float, high: float = math.inf) -> Any:
    """A field of a dataclass that holds a number from `low` to `high`, or several of them."""
    return field(default=default, metadata={"range": (low, high)})


def out_of_range(part: Any) -> str | None:
    """The first number of a dataclass, or of one within it, that cannot work, in words; None when all can.

    A field without limits of its own holds finite numbers from 0 on.
    """
    for f in fields(part):
        value = getattr(part, f.name)
        if is_dataclass(value) and (wrong := out_of_range(value)):
            return wrong
        low, high = f.metadata.get("range", (0, math.inf))
        for number in value if isinstance(value, tuple) else (value,):
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if is_number and not (math.isfinite(number) and low <= number <= high):
                wanted = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
                return f"{f.name} to be {wanted}, but got {number}"
    return None
