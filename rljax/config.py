"""Configs are frozen dataclasses and pytrees: a float is a leaf, all else is structure.

So `jax.jit(train)(key, config)` compiles once for all learning rates and again for another
number of environments, and `jax.vmap` sweeps any float: no field is marked by hand. The
command line reads these fields without JAX, so this module imports it only in `config`.
"""

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform, get_type_hints

import numpy as np

C = TypeVar("C")

ALIASES = {
    "lr": "learning_rate", "n_envs": "num_envs", "n_steps": "num_steps", "clip_range": "clip_eps",
    "clip_coef": "clip_eps", "clip": "clip_eps", "discount": "gamma", "lambda": "gae_lambda",
    "lam": "gae_lambda", "entropy_coef": "ent_coef", "value_coef": "vf_coef",
    "n_epochs": "update_epochs", "num_epochs": "update_epochs", "epochs": "update_epochs",
    "n_minibatches": "num_minibatches", "timesteps": "total_timesteps",
    "total_steps": "total_timesteps", "num_timesteps": "total_timesteps",
    "n_seeds": "num_seeds", "seeds": "num_seeds",
    "rollout_length": "num_steps", "hidden": "hidden_sizes",
    "net_arch": "hidden_sizes", "grad_clip": "max_grad_norm", "kl_target": "target_kl",
    "d_targ": "target_kl", "normalize_observations": "normalize_obs",
    "normalize_rewards": "normalize_reward", "env": "env_id", "activation_fn": "activation",
}  # fmt: skip


def option(
    default: Any, help: str, *, low: float | None = None, high: float | None = None,
    above: float | None = None, choices: tuple[str, ...] = (),
) -> Any:  # fmt: skip
    """A config field: its default, meaning, and range (`low <= x <= high`, `x > above`)."""
    limits = {"low": low, "high": high, "above": above, "choices": choices, "help": help}
    return dataclasses.field(default=default, metadata=limits)


@dataclass_transform(frozen_default=True, field_specifiers=(option, dataclasses.field))
def config(cls: type[C]) -> type[C]:
    """Makes a class a frozen dataclass whose `float` fields are traced, the others static.

    Values are checked when a config is made; tracers, which carry no value, are let through.
    """
    import jax

    cls = dataclasses.dataclass(frozen=True)(cls)
    types = field_types(cls)
    traced = [name for name, kind in types.items() if kind is float]
    static = [name for name in types if name not in traced]

    def flatten_with_keys(config):
        keys = jax.tree_util.GetAttrKey
        leaves = [(keys(name), getattr(config, name)) for name in traced]
        return leaves, tuple(getattr(config, name) for name in static)

    def unflatten(structure, leaves):  # unchecked: gradients and vmap's axes are no hyperparameters
        config = object.__new__(cls)
        for name, value in [
            *zip(traced, leaves, strict=True),
            *zip(static, structure, strict=True),
        ]:
            object.__setattr__(config, name, value)
        return config

    jax.tree_util.register_pytree_with_keys(
        cls, flatten_with_keys, unflatten,
        lambda config: (
            [getattr(config, name) for name in traced],
            tuple(getattr(config, name) for name in static),
        ),
    )  # fmt: skip
    return cls


def field_types(cls: type) -> dict[str, type]:
    """The fields of a config class and their types."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def unknown_key(key: str, known: Iterable[str], owner: str) -> ValueError:
    """The error for a key that does not exist: it names the nearest one that does."""
    name, known = key.replace("-", "_"), list(known)
    if ALIASES.get(name) in known:
        return ValueError(f"{owner} has no option `{key}`: `{name}` is `{ALIASES[name]}` here.")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    cure = f"did you mean `{near[0]}`?" if near else f"its options are {', '.join(sorted(known))}."
    return ValueError(f"{owner} has no option `{key}`: {cure}")


def convert(name: str, value: Any, kind: type) -> Any:
    """Reads a value from TOML, Python or the command line as the type of its field.

    Whole floats and texts such as "1e6" are taken for integers; a float field takes a number.

    Raises:
      ValueError: the value does not read as `kind`.
    """
    text = value.strip() if isinstance(value, str) else None
    try:
        if kind is bool:
            texts = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
            if text is not None:
                return texts[text.lower()]
            if value in (0, 1):
                return bool(value)
            raise ValueError
        if kind is int:
            if isinstance(value, (bool, np.bool_)):
                raise ValueError
            number = float(text.replace("_", "")) if text is not None else value
            if text is not None and text.replace("_", "").lstrip("+-").isdigit():
                number = int(text)
            if number != int(number):
                raise ValueError
            return int(number)
        if kind is float:
            if isinstance(value, (bool, np.bool_)):
                raise ValueError
            return float(value)
        if kind is str:
            if text is None:
                raise ValueError
            return text
        items = text.strip("[]() ").split(",") if text is not None else value
        return tuple(convert(name, item, int) for item in items if item != "")
    except (ValueError, TypeError, KeyError, OverflowError):
        wanted = {
            bool: "true or false", int: "a whole number", float: "a number", str: "a text",
        }.get(kind, "whole numbers such as 64,64")  # fmt: skip
        raise ValueError(f"`{name}` is {value!r}, but it must be {wanted}.") from None


def check(config: Any) -> None:
    """Checks the values of a config against the limits of its fields; tracers pass.

    Raises:
      ValueError: naming the field, its value and what it may be.
    """
    types = field_types(type(config))
    for field in dataclasses.fields(config):
        value, limits = getattr(config, field.name), field.metadata
        if types[field.name] is not float or isinstance(value, (str, bool, int)):
            value = convert(field.name, value, types[field.name])
            object.__setattr__(config, field.name, value)
        if isinstance(value, str):
            choices = limits.get("choices") or (value,)
            if value not in choices:
                near = difflib.get_close_matches(value, choices, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                raise ValueError(
                    f"`{field.name}` is {value!r}, but it must be one of {', '.join(choices)}{hint}"
                )
            continue
        try:
            numbers = np.asarray(value, dtype=np.float64).reshape(-1)
        except Exception:  # a tracer, or a placeholder that JAX puts into a pytree
            continue
        for number in numbers:
            _check_number(field.name, number, value, limits)


def _check_number(name: str, number: float, value: Any, limits: Mapping[str, Any]) -> None:
    low, high, above = limits.get("low"), limits.get("high"), limits.get("above")
    bounds = []
    if above is not None:
        bounds.append(f"above {above}")
    if low is not None:
        bounds.append(f"at least {low}")
    if high is not None:
        bounds.append(f"at most {high}")
    wrong = (
        not math.isfinite(number)
        or (low is not None and number < low)
        or (high is not None and number > high)
        or (above is not None and number <= above)
    )
    if wrong:
        shown = value if np.ndim(value) == 0 else list(np.asarray(value).tolist())
        raise ValueError(
            f"`{name}` is {shown}, but it must be {' and '.join(bounds) or 'a finite number'}."
        )


@config
class RunConfig:
    """What every run has, whatever the algorithm; an agent's config extends it."""

    total_timesteps: int = option(500_000, "environment steps of the whole run", low=1)
    num_envs: int = option(8, "environments side by side (B)", low=1)
    num_steps: int = option(128, "steps of each between updates (T)", low=1)
    gamma: float = option(0.99, "discount", low=0.0, high=1.0)

    def __post_init__(self):
        check(self)
        batch = self.num_envs * self.num_steps
        if self.total_timesteps < batch:
            raise ValueError(
                f"`total_timesteps` is {self.total_timesteps}, but one update takes num_envs x "
                f"num_steps = {batch} steps: raise it to {batch} or more."
            )

    @property
    def num_updates(self) -> int:
        """Updates of the whole run: never more environment steps than were asked for."""
        return self.total_timesteps // (self.num_envs * self.num_steps)


def from_mapping(cls: type[C], values: Mapping[str, Any], base: C | None = None) -> C:
    """Builds a config from a mapping over the defaults (or over `base`).

    Raises:
      ValueError: an unknown key (the nearest known one is named), or a value of the wrong type
        or out of range.
    """
    types = field_types(cls)
    for key in values:
        if key not in types:
            raise unknown_key(key, types, f"{cls.__name__}")
    converted = {key: convert(key, value, types[key]) for key, value in values.items()}
    return dataclasses.replace(base or cls(), **converted)  # type: ignore[type-var]


def to_mapping(config: Any) -> dict[str, Any]:
    """The plain values of a config, as they stand in TOML (floats as Python floats)."""
    out = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple):
            value = list(value)
        elif not isinstance(value, (str, bool, int, float)):
            value = np.asarray(value, np.float64).tolist()
        out[field.name] = value
    return out


def load(path: str | Path) -> dict[str, Any]:
    """Reads a TOML file: `agent`, `env_id`, and the hyperparameters at its top level.

    Raises:
      ValueError: the file is missing or is not TOML, with the place.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give the path of a TOML file.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}.") from None


def dump(values: Mapping[str, Any]) -> str:
    """Writes a flat mapping as TOML; what `load` reads back is equal."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value):
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, str):
        return (
            '"'
            + "".join(
                "\\" + c
                if c in '"\\'
                else f"\\u{ord(c):04x}"
                if ord(c) < 32 or ord(c) == 127
                else c
                for c in value
            )
            + '"'
        )
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return str(value)
