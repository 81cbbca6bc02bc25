"""Numbers, settings and labels as text, for tables and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def human(number: float) -> str:
    """Formats a number with 4 significant digits and a suffix: 497, 430k, 1.5M."""
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if 0.99995 * scale <= abs(number) < float("inf"):
            return f"{number / scale:.4g}{suffix}"
    return f"{number:.4g}"


def human_range(numbers: Any) -> str:
    """Returns such as "45k to 80k", or "45k" if all numbers are equal; NaN is left out."""
    known = np.asarray(numbers, np.float64)
    known = known[~np.isnan(known)]
    low, high = human(known.min()), human(known.max())
    return low if low == high else f"{low} to {high}"


def count(number: int, noun: str) -> str:
    """Returns such as "1 seed" or "2 seeds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def value(of_field: Any) -> str:
    """Returns the value of a field: "0.001", "[64, 64]", or the name of a function."""
    if isinstance(of_field, float):
        return f"{of_field:g}"
    return str(getattr(of_field, "__name__", of_field))


def setting(values: Mapping[str, Any]) -> str:
    """Returns such as "learning_rate=0.001, gamma=0.99"."""
    return ", ".join(f"{name}={value(of_field)}" for name, of_field in values.items())


def labels(named: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Returns a label for each (agent, config): the values that differ between its agent's configs.

    Equal labels are numbered.
    """
    texts = []
    for agent, config in named:
        peers = [other for name, other in named if name == agent]
        fields = dict.fromkeys(field for other in peers for field in other)
        differs = [f for f in fields if any(other.get(f) != config.get(f) for other in peers)]
        texts.append(setting({f: config[f] for f in differs if f in config}))
    rows = [(agent, text) for (agent, _), text in zip(named, texts, strict=True)]
    return [
        f"{text} ({rows[:i].count(row) + 1})".strip() if row in rows[:i] else text
        for i, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]
