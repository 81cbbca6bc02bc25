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


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name closest to `name`, ignoring case, or None if no name is close.

    A known name that starts with `name` comes before one that is spelled similarly.
    """
    by_lower = {each.lower(): each for each in known}
    starts = [each for each in by_lower if each.startswith(name.lower())] if name else []
    close = starts or difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
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
    near = nearest(name, known)
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
        }.get(kind, "integers such as 64,64")  # fmt: skip
        raise ValueError(f"`{name}` is {value!r}, but it must be {wanted}.") from None


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
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except Exception:  # a tracer, or a placeholder that JAX puts into a pytree
        return
    wrong = ~np.isfinite(numbers)
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


def at_least(name: str, value: Any, low: int) -> int:
    """Returns an option as an integer, checked to be `low` or more.

    Raises:
      ValueError: the value is not an integer, or is less than `low`.
    """
    number = convert(name, value, int)
    if number < low:
        raise ValueError(f"`{name}` is {value}, but it must be at least {low}.")
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
