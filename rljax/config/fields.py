"""Config classes: frozen dataclasses that are pytrees, with a help text and a range per field.

`float` fields are leaves, all other fields are static. So `jax.jit(train)(key, config)` compiles
once for all learning rates and again for another `num_envs`, and `jax.vmap` sweeps any float.
"""

import dataclasses
import functools
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar, dataclass_transform, get_type_hints

import numpy as np

from rljax.config.values import check_range, convert, nearest, unknown_key

C = TypeVar("C")
MAX_COUNT = 2**31 - 1  # counters on the device are int32
MAX_STEPS = 2**53  # the integers up to here are exact as floats, such as the axis of a figure


def option(
    default: Any, help: str, *, low: float | None = None, high: float | None = None,
    above: float | None = None, choices: Collection[str] = (),
) -> Any:  # fmt: skip
    """Returns a config field with a default value, a help text and a range.

    Args:
      default: the default value.
      help: the meaning, one line; it appears in `rljax train AGENT --help`.
      low, high: inclusive bounds of a number, or of each number of a tuple.
      above: exclusive lower bound.
      choices: allowed values of a string.

    Example:
      >>> from rljax.config import RunConfig
      >>> @config
      ... class BonusConfig(RunConfig):
      ...     bonus: float = option(0.1, "weight of the exploration bonus", low=0)
      >>> BonusConfig().bonus
      0.1
    """
    limits = {"low": low, "high": high, "above": above, "choices": choices, "help": help}
    return dataclasses.field(default=default, metadata=limits)


@dataclass_transform(frozen_default=True, field_specifiers=(option, dataclasses.field))
def config(cls: type[C]) -> type[C]:
    """Turns a class into a frozen dataclass whose `float` fields are traced, the others static.

    A subclass of `RunConfig` checks its values when an instance is made; tracers are not checked.
    """
    import jax

    cls = dataclasses.dataclass(frozen=True)(cls)
    types = field_types(cls)
    traced = [name for name, kind in types.items() if kind is float]
    static = [name for name in types if name not in traced]

    def flatten(config):
        leaves = tuple(getattr(config, name) for name in traced)
        return leaves, tuple(getattr(config, name) for name in static)

    def flatten_with_keys(config):
        leaves, structure = flatten(config)
        keys = map(jax.tree_util.GetAttrKey, traced)
        return tuple(zip(keys, leaves, strict=True)), structure

    def unflatten(structure, leaves):  # no checks: a leaf may be a gradient or an axis of vmap
        config = object.__new__(cls)
        for name, value in zip((*traced, *static), (*leaves, *structure), strict=True):
            object.__setattr__(config, name, value)
        return config

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


@functools.cache
def field_types(cls: type) -> Mapping[str, type]:
    """Returns the name and type of every field of a config class."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def check(config: Any) -> None:
    """Checks the values of a config against the types and ranges of its fields.

    Values are converted in place to the types of their fields. Tracers are not checked.

    Raises:
      ValueError: the message names the field, its value and the allowed values.
    """
    types = field_types(type(config))
    for field in dataclasses.fields(config):
        value, limits = getattr(config, field.name), field.metadata
        if is_tracer(value):
            continue
        if types[field.name] is not float or isinstance(value, (str, bool, int)):
            value = convert(field.name, value, types[field.name])
            object.__setattr__(config, field.name, value)
        if isinstance(value, str):
            choices = limits.get("choices") or (value,)
            if value not in choices:
                near = nearest(value, choices)
                hint = f"; did you mean {near!r}?" if near else "."
                raise ValueError(
                    f"`{field.name}` is {value!r}, but it must be one of {', '.join(choices)}{hint}"
                )
        else:
            bounds = {name: limits.get(name) for name in ("low", "high", "above")}
            if types[field.name] is not float and bounds["high"] is None:
                # the steps of a run are counted on the host, everything else on the device
                bounds["high"] = MAX_STEPS if field.name == "total_timesteps" else MAX_COUNT
            check_range(field.name, value, **bounds)


def is_tracer(value: Any) -> bool:
    """Whether a value is an argument of a JAX program that is being traced."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def from_mapping(cls: type[C], values: Mapping[str, Any], base: C | None = None) -> C:
    """Builds a config from a mapping of values over the defaults, or over `base`.

    Raises:
      ValueError: a key is unknown (the message names the nearest known one), or a value has the
        wrong type or is out of range.

    Example:
      >>> from rljax.config import RunConfig
      >>> from_mapping(RunConfig, {"gamma": "0.9", "num_envs": 4})
      RunConfig(total_timesteps=500000, num_envs=4, num_steps=128, gamma=0.9)
    """
    types = field_types(cls)
    for key in values:
        if key not in types:
            raise unknown_key(key, types, f"{cls.__name__}")
    converted = {key: convert(key, value, types[key]) for key, value in values.items()}
    if base is None:
        return cls(**converted)
    return dataclasses.replace(base, **converted)  # type: ignore[type-var]


def check_swept(cls: type, name: str, values: Iterable[float]) -> None:
    """Checks each of the values of a swept field against its range.

    Raises:
      ValueError: a value is out of range; it is named.
    """
    (field,) = (field for field in dataclasses.fields(cls) if field.name == name)
    bounds = {bound: field.metadata.get(bound) for bound in ("low", "high", "above")}
    for value in values:
        check_range(name, value, **bounds)


def to_mapping(config: Any) -> dict[str, Any]:
    """Returns the values of a config as plain Python values, ready for TOML."""
    out = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple):
            value = list(value)
        elif not isinstance(value, (str, bool, int, float)):
            value = np.asarray(value, np.float64).tolist()
        out[field.name] = value
    return out
