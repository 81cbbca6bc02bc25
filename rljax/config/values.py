"""Conversion and checks of option values, and the errors that name the nearest known option."""

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np

# names that other libraries use -> the name in rljax; they appear in error messages only
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


MAX_SHOWN = 80  # characters of a value in a message
MIN_PART = 3  # characters of a part of a name that suggests it
MAX_SUGGESTIONS = 12  # names that start like an unknown one
MIN_FLOAT, MAX_FLOAT = 1.1754944e-38, 3.4028235e38  # range of float32


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name closest to `name`, ignoring case, or None if no name is close.

    A known name that starts with `name` comes first, then one that contains it, then one that is
    spelled similarly.
    """
    lower, by_lower = name.lower(), {each.lower(): each for each in known}
    close = [each for each in by_lower if each.startswith(lower)] if lower else []
    if len(lower) >= MIN_PART:
        close += [each for each in by_lower if lower in each]
    close = close or difflib.get_close_matches(lower, by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns the cure for an unknown name: the nearest known name, or the list of all names.

    Example:
      >>> suggestion("pppo", ["dqn", "ppo"])
      'did you mean `ppo`?'
      >>> suggestion("xyzzy", ["dqn", "ppo"])
      'use one of dqn, ppo.'
    """
    known = list(known)
    starts = sorted(each for each in known if each.lower().startswith(name.lower()))
    if name and 1 < len(starts) <= MAX_SUGGESTIONS:
        return f"did you mean one of {', '.join(starts)}?"
    near = nearest(name, known) if len(starts) <= 1 else None
    return f"did you mean `{near}`?" if near else f"use one of {', '.join(known) or 'none'}."


def unknown_key(key: str, known: Iterable[str], owner: str) -> ValueError:
    """Returns the error for an unknown option; it names the nearest known option."""
    name, known = key.replace("-", "_"), sorted(known)
    alias = ALIASES.get(name)
    cure = f"`{name}` is `{alias}` here." if alias in known else suggestion(name, known)
    return ValueError(f"{owner} has no option `{key}`: {cure}")


def convert(name: str, value: Any, kind: type) -> Any:
    """Converts a value from TOML, Python or the command line to the type of its field.

    An integer may be written as 1e6 or "1_000_000", a tuple of integers as "64,64".

    Raises:
      ValueError: the value cannot be converted; the message names the option and the value.
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
            bool: "true or false", int: "an integer", float: "a number", str: "a string",
        }.get(kind, "integers such as 64,64; only decimal options can be swept")  # fmt: skip
        raise ValueError(f"`{name}` is {shown(value)}, but it must be {wanted}.") from None


def shown(value: Any) -> str:
    """Returns a value as messages show it, in one line of at most 80 characters.

    Example:
      >>> shown(np.zeros((2, 1)))
      'array([[0.], [0.]])'
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def check_range(
    name: str, value: Any, *, low: float | None = None, high: float | None = None,
    above: float | None = None,
) -> None:  # fmt: skip
    """Checks that numbers are finite and that `low <= x <= high` and `x > above`.

    Args:
      name: the option, for the message.
      value: a number or an array. Tracers are not checked.

    Raises:
      ValueError: a number is outside the range.

    Example:
      >>> check_range("gamma", 1.5, low=0, high=1)
      Traceback (most recent call last):
      ValueError: `gamma` is 1.5, but it must be at least 0 and at most 1.
    """
    if type(value) in (int, float) and _in_range(value, low, high, above):
        return  # without NumPy, which takes longer
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except Exception:  # a tracer, or a placeholder that JAX puts into a pytree
        return
    wrong = ~(np.abs(numbers) <= MAX_FLOAT)
    if not wrong.any() and np.any((numbers != 0) & (np.abs(numbers) < MIN_FLOAT)):
        raise ValueError(f"`{name}` is {value}, which is 0 in float32: give a larger number, or 0.")
    bounds = []
    if above is not None:
        bounds.append(f"above {above}")
        wrong |= ~(numbers > above)
    if low is not None:
        bounds.append(f"at least {low}")
        wrong |= ~(numbers >= low)
    if high is not None:
        bounds.append(f"at most {high}")
        wrong |= ~(numbers <= high)
    if wrong.any():
        shown = value if np.ndim(value) == 0 else np.asarray(value).tolist()
        raise ValueError(
            f"`{name}` is {shown}, but it must be {' and '.join(bounds) or 'a finite number'}."
        )


def _in_range(
    value: int | float, low: float | None, high: float | None, above: float | None
) -> bool:
    """Whether a number is within its bounds and those of float32, or is 0."""
    return (
        (value == 0 or MIN_FLOAT <= abs(value) <= MAX_FLOAT)
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
    )


def at_least(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Returns an option as an integer, checked to be `low` or more, and `high` or less.

    Raises:
      ValueError: the value is not an integer, or is out of range.
    """
    number = convert(name, value, int)
    if number < low:
        raise ValueError(f"`{name}` is {value}, but it must be at least {low}.")
    if high is not None and number > high:
        raise ValueError(f"`{name}` is {value}, but it must be at most {high:,}.")
    return number


def kind_of(value: Any) -> str:
    """Returns how messages name an object of the wrong kind.

    Example:
      >>> kind_of(len), kind_of(3)
      ('the function `len`', 'of type `int`')
    """
    if callable(value) and hasattr(value, "__name__"):
        return f"the {'class' if isinstance(value, type) else 'function'} `{value.__name__}`"
    return f"of type `{type(value).__name__}`"
