"""Adapter for brax, robots in rigid-body physics, https://github.com/google/brax.

An end is brax's `done`, which is termination alone where brax's own wrappers are absent. brax has
no time limit without them; the usual one of 1000 steps is the adapter's. Actions are from -1 to 1
in every dimension. `backend` chooses the physics: "generalized", "positional", "spring" or "mjx".
"""

import inspect
import warnings
from importlib import metadata
from typing import Any

import jax.numpy as jnp
from brax import envs
from brax.envs.wrappers import training

from rljax.envs.adapters import checked_params, only_time_limit, simulation
from rljax.types import Env

TIME_LIMIT = 1000
BACKENDS = ("generalized", "positional", "spring", "mjx")
REFUSED = (training.EpisodeWrapper, training.AutoResetWrapper, training.VmapWrapper)


def registered() -> list[str]:
    """Returns the names of all environments that are registered in brax."""
    return [name for name in envs._envs if name != "fast"]  # a stub for brax's own tests


def unavailable(name: str) -> str:
    """Returns why an environment cannot be made, as a sentence; empty if it can."""
    if name != "swimmer" or "a_min" in inspect.signature(jnp.clip).parameters:
        return ""
    return (
        f"brax/swimmer of brax {metadata.version('brax')} calls `jnp.clip(a_min=...)`, which this "
        "version of JAX no longer has. playground/SwimmerSwimmer6 is a similar task."
    )


def from_id(name: str, **params: Any) -> Env:
    """Returns a registered environment of brax as an `Env` whose `step` does not reset.

    Args:
      name: one of `registered()`.
      params: arguments of the environment's class, such as `backend` and `ctrl_cost_weight`, and
        `max_episode_steps`.

    Raises:
      ValueError: an unknown parameter or backend, or an environment that JAX cannot run.
    """
    if reason := unavailable(name):
        raise ValueError(reason)
    limit = params.pop("max_episode_steps", TIME_LIMIT)
    arguments = inspect.signature(envs._envs[name]).parameters.values()
    known = {x.name: x.default for x in arguments if x.kind == x.POSITIONAL_OR_KEYWORD}
    params = checked_params(params, {"backend": "", "n_frames": 1, "debug": False} | known, name)
    if (backend := params.get("backend", BACKENDS[0])) not in BACKENDS:
        raise ValueError(f"`backend` is {backend!r}, but it must be one of {', '.join(BACKENDS)}.")
    with warnings.catch_warnings():  # brax recommends MuJoCo Playground
        warnings.filterwarnings("ignore", "Brax System", UserWarning)
        env = envs.get_environment(name, **params)
    return simulation(env, f"brax/{name}", limit)


def from_object(env: Any, env_params: None = None, **params: Any) -> Env:
    """Returns an environment object of brax as an `Env` whose `step` does not reset.

    Args:
      env: a `brax.envs.Env`, without brax's wrappers for training.
      env_params: None; the parameters of brax are arguments of the environment's class.
      params: only `max_episode_steps`.

    Raises:
      ValueError: not an environment of brax, one with a wrapper for training, or another
        parameter.
    """
    name = type(env).__name__
    if not isinstance(env, envs.Env):
        raise ValueError(f"{name} is not an environment of brax, a `brax.envs.Env`.")
    limit = only_time_limit(env_params, params, TIME_LIMIT, name)
    inner = env
    while isinstance(inner, envs.Wrapper):
        if isinstance(inner, REFUSED):
            raise ValueError(
                f"{type(inner).__name__} of brax is for brax's own training: pass the environment "
                "without it, such as `brax.envs.get_environment(name)`. rljax resets and batches "
                "it, and `max_episode_steps` sets the time limit."
            )
        inner = inner.env
    return simulation(env, type(env.unwrapped).__name__, limit)
