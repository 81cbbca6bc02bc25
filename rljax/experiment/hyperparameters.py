"""The keyword arguments of a run: split into values, sweeps and pieces, and checked."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from rljax import config as configs
from rljax.agents import AgentRow
from rljax.config import shown
from rljax.experiment.options import RUN_OPTIONS


def piece_names(row: AgentRow) -> list[str]:
    """Returns the pieces that a maker takes, such as "network" and "optimizer"."""
    parameters = inspect.signature(row.make).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "average"]


def split_hyperparameters(
    agent: str, row: AgentRow, hyperparameters: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, list[float]], dict[str, Any]]:
    """Splits hyperparameters into single values, swept values and pieces.

    Raises:
      ValueError: an unknown name, or an invalid sweep. Makers check the pieces.
    """
    types = configs.field_types(row.config)
    known = piece_names(row)
    values, sweep, pieces = {}, {}, {}
    for name, value in hyperparameters.items():
        if name in known and value is None:
            continue  # the default
        if name in known and not _is_option(value, name in types):
            pieces[name] = value
        elif name in known and name not in types:
            raise ValueError(
                f"`{name}` is {shown(value)}, but it is a piece of `{agent}`: pass the object "
                "itself."
            )
        elif name not in types:
            raise configs.unknown_key(name, [*types, *known, *RUN_OPTIONS], f"`{agent}`")
        elif np.ndim(value) > 0 and types[name] in (int, float, str, bool):
            sweep[name] = _swept_values(name, value, types[name])
            configs.check_swept(row.config, name, sweep[name])
        else:
            values[name] = value
    return values, sweep, pieces


def _is_option(value: Any, is_field: bool) -> bool:
    """Whether an argument with the name of a piece is the value of an option.

    Some names are both: `surrogate="kl"` is an option, and a list of names is a wrong sweep.
    """
    return isinstance(value, (str, bool, int, float)) or (is_field and type(value) is list)


def _swept_values(name: str, value: Any, kind: type) -> list[float]:
    if kind is not float:
        raise ValueError(
            f"`{name}` is {shown(list(value))}, but it changes the compiled program and cannot be "
            "swept: call `train` once for each value."
        )
    if np.ndim(value) != 1 or len(value) == 0:
        raise ValueError(f"`{name}` is {shown(value)}, but a sweep must be a flat list of numbers.")
    return [configs.convert(name, item, float) for item in value]
