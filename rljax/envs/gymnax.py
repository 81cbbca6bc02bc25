"""The one place that speaks gymnax (>= 1.0).

Its `step` draws and builds a fresh reset state for every environment at every step, and then
throws nearly all of them away; the adapter takes `step_env`, which does not reset, and rljax's
own `auto_reset` does the rest. gymnax's `is_truncated` is the time limit.
"""

import contextlib
import importlib
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from rljax.types import Env, EnvSpec, Step

STAND_INS = ("matplotlib", "seaborn")  # what gymnax imports only to draw pictures with


class _LaterModule(types.ModuleType):
    """Stands in for a module until an attribute is asked for, then hands out the real one's."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        real = importlib.import_module(self.__name__)
        return getattr(real, name)


@contextlib.contextmanager
def _without_plotting() -> Iterator[None]:
    """Imports inside see stand-ins for the plotting libraries, which bring 7 of 9 seconds.

    Two of gymnax's environments import seaborn (and so pandas and scipy.stats) and five
    matplotlib at module level, for rendering alone. The stand-ins leave `sys.modules` at once;
    whoever kept one reaches the real library through it.
    """
    names = []
    for top in STAND_INS:
        if top in sys.modules:
            continue
        for name in (top, f"{top}.pyplot", f"{top}.colors", f"{top}.animation"):
            module = _LaterModule(name)
            module.__path__ = []
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
            sys.modules[name] = module
            names.append(name)
        for part in ("pyplot", "colors", "animation"):
            sys.modules[top].__dict__[part] = sys.modules[f"{top}.{part}"]
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


def load_gymnax() -> Any:
    """The gymnax package, without what it imports only to draw pictures."""
    if "gymnax" not in sys.modules:
        with _without_plotting():
            importlib.import_module("gymnax")
    return sys.modules["gymnax"]


def registered() -> list[str]:
    """The ids of all environments that gymnax knows."""
    return list(load_gymnax().registered_envs)


def from_id(env_id: str, **params: Any) -> Env:
    """A registered gymnax environment as an `Env` that does not reset (see `wrappers.auto_reset`)."""
    env, env_params = load_gymnax().make(env_id)
    return from_object(env, env_params, **params)


def from_object(env: Any, env_params: Any = None, **params: Any) -> Env:
    """A gymnax environment object as an `Env` that does not reset.

    Args:
      env: has `reset_env(key, params)`, `step_env(key, state, action, params)`.
      env_params: its parameters; the object's defaults where None.
      params: parameters to change, by name.

    Raises:
      ValueError: a parameter that the environment does not have, or a space that is neither
        discrete nor a box.
    """
    env_params = env.default_params if env_params is None else env_params
    name = getattr(env, "name", type(env).__name__)
    if unknown := [key for key in params if not hasattr(env_params, key)]:
        known = sorted(vars(env_params))
        raise ValueError(f"{name} has no parameter `{unknown[0]}`: it has {', '.join(known)}.")
    env_params = env_params.replace(**params) if params else env_params
    spec = _spec(env, env_params, name)

    def reset(key):
        obs, state = env.reset_env(key, env_params)
        return state, obs

    def step(state, action, key):
        obs, state, reward, terminated, info = env.step_env(key, state, action, env_params)
        truncated = env.is_truncated(state, env_params) & ~terminated
        info = {key: value for key, value in info.items() if key != "discount"}
        return state, Step(obs, reward, terminated, truncated, obs, info)

    return Env(spec, reset, step)


def _spec(env: Any, env_params: Any, name: str) -> EnvSpec:
    action = env.action_space(env_params)
    observation = env.observation_space(env_params)
    shape = getattr(observation, "shape", None)
    if shape is None:
        raise ValueError(
            f"{name} observes a {type(observation).__name__}, which rljax cannot feed to a network: "
            "wrap it so that it observes one array."
        )
    limit = int(getattr(env_params, "max_steps_in_episode", 0))
    spec = EnvSpec(tuple(shape), max_episode_steps=limit, env_id=str(name))
    if hasattr(action, "n"):
        return spec._replace(num_actions=int(action.n))
    if not hasattr(action, "low"):
        raise ValueError(
            f"{name} acts in a {type(action).__name__}: rljax needs a Discrete or a Box space."
        )
    low, high = (np.broadcast_to(np.asarray(x, np.float32), action.shape) for x in (action.low, action.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"{name} has an unbounded action space: clip it to a finite box first.")
    return spec._replace(action_shape=tuple(action.shape), action_low=low, action_high=high)
