"""The settings of a sweep, and the best of them."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rljax.config import dump
from rljax.results import figures, statistics

if TYPE_CHECKING:
    from rljax.results.result import Result


def settings(sweep: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns the fields of each setting, in the order of the axes of a sweep; dicts are merged."""
    merged = []
    for values in itertools.product(*sweep.values()):
        setting: dict[str, Any] = {}
        for name, value in zip(sweep, values, strict=True):
            setting |= value if isinstance(value, dict) else {name: value}
        merged.append(setting)
    return merged


def is_product(sweep: Mapping[str, Sequence[Any]]) -> bool:
    """Whether all axes of a sweep are single fields, without a list of settings."""
    return not any(isinstance(value, dict) for values in sweep.values() for value in values)


def ranking(result: "Result") -> list[int]:
    """Returns the order of `Result.ranking`."""
    if result.evaluation is None and figures.EPISODIC_RETURN not in result.metrics:
        return list(range(len(result.settings)))
    return statistics.ranking(result.scores(result.evaluation is not None))


def best_setting(result: "Result", path: str | Path | None) -> dict[str, Any]:
    """Returns the setting of `Result.best_setting`, and writes its configuration."""
    if np.isnan(result.scores(result.evaluation is not None)).all():
        raise ValueError(f"no run of {result.title} has a score: train for more steps.")
    best = result.settings[ranking(result)[0]]
    if path is not None:
        swept = ("setting", "settings", *result.sweep)
        config = {"agent": result.agent, "env_id": result.env_id, **result.config}
        config = {name: value for name, value in config.items() if name not in swept}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(dump(config | best), encoding="utf-8")
    return best
