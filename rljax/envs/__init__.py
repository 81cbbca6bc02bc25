"""Environments: `make` for one that resets itself, `build` for a batch that a learner takes.

Importing this imports no suite of environments; `make` imports the one it is asked for.
"""

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

from rljax.config import convert
from rljax.envs.checks import check_env, check_shapes
from rljax.envs.wrappers import auto_reset, batched, record_episodes, time_limit
from rljax.types import Env

__all__ = [
    "SUITES", "auto_reset", "batched", "build", "check_env", "environment_ids", "make",
    "record_episodes", "time_limit",
]  # fmt: skip

# A suite is a module with `registered() -> ids` and `from_id(id, **params) -> Env`, which does
# not reset and knows `max_episode_steps`. Its ids are `suite/Name`; gymnax's need no `gymnax/`.
SUITES = {
    "gymnax": "rljax.envs.gymnax", "rljax": "rljax.envs.worlds", "partial": "rljax.envs.partial",
}  # fmt: skip


def environment_ids() -> list[str]:
    """Every id that `make` takes, suite by suite."""
    ids = []
    for suite in SUITES:
        prefix = "" if suite == "gymnax" else f"{suite}/"
        ids += [prefix + name for name in importlib.import_module(SUITES[suite]).registered()]
    return ids


def make(env: Any, **params: Any) -> Env:
    """One environment that resets itself.

    Args:
      env: an id ("CartPole-v1", "gymnax/CartPole-v1"); a gymnax environment; a pair of one and
        its parameters; or an `Env`, which must reset itself and is taken as it is.
      params: parameters of the environment by name; `max_episode_steps` is its time limit,
        whatever the environment calls it.

    Raises:
      ValueError: an unknown id or parameter (the nearest known one is named), or an environment
        that is not well formed (see `check_env`).
    """
    if "max_episode_steps" in params:
        limit = convert("max_episode_steps", params["max_episode_steps"], int)
        if limit < 1:
            raise ValueError(f"`max_episode_steps` is {limit}, but it must be at least 1.")
        params["max_episode_steps"] = limit
    if isinstance(env, Env):
        return _limited(env, **params)
    if isinstance(env, str):
        suite, name = _place(env)
        made = importlib.import_module(SUITES[suite]).from_id(name, **params)
    else:
        from rljax.envs import gymnax

        env, env_params = env if isinstance(env, tuple) and len(env) == 2 else (env, None)
        made = gymnax.from_object(env, env_params, **params)
    check_shapes(made)  # before `auto_reset`, whose complaints would be JAX's
    return auto_reset(made)


def build(env: Any, num_envs: int, **params: Any) -> Env:
    """`num_envs` copies of `make(env, **params)` side by side, as learners take them."""
    return batched(make(env, **params), num_envs)


def _limited(env: Env, max_episode_steps: int | None = None, **params: Any) -> Env:
    """An `Env` of the user, perhaps with another time limit."""
    if params:
        raise ValueError(
            f"{env.spec.env_id} has no parameter `{next(iter(params))}` that could be set from "
            "outside: an `Env` is taken as it is, set it where it is made."
        )
    # where the task ends it resets itself, and so do we: the one reset does not see the other
    return auto_reset(time_limit(env, max_episode_steps)) if max_episode_steps else env


def _place(env_id: str) -> tuple[str, str]:
    """The suite of an id and its name there."""
    suite, name = env_id.split("/", 1) if "/" in env_id else ("gymnax", env_id)
    if suite not in SUITES:
        near = _nearest(suite, SUITES) or ", ".join(SUITES)
        raise ValueError(f"there is no suite `{suite}` of `{env_id}`: did you mean {near}?")
    if name not in importlib.import_module(SUITES[suite]).registered():
        near = _nearest(env_id.removeprefix("gymnax/"), environment_ids())
        hint = f"did you mean {near}? " if near else ""
        raise ValueError(f"there is no environment `{env_id}`: {hint}`rljax list` names them all.")
    return suite, name


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like this one, whatever the case; `breakout` is Breakout-MinAtar."""
    lower = {each.lower(): each for each in known}
    starts = [each for each in lower if each.startswith(name.lower())] if name else []
    near = starts or difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return lower[near[0]] if near else None
