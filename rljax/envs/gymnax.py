"""The one place that speaks gymnax (>= 1.0).

Its `step` draws and builds a fresh reset state for every environment at every step, and then
throws nearly all of them away; the adapter takes `step_env`, which does not reset, and rljax's
own `auto_reset` does the rest. gymnax's `is_truncated` is the time limit.
"""

import contextlib
import dataclasses
import importlib
import importlib.machinery
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import convert, unknown_key
from rljax.envs.wrappers import time_limit
from rljax.types import Env, EnvSpec, Step, is_key

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
    """A registered gymnax environment as an `Env` that does not reset (see `wrappers.auto_reset`).

    Args:
      env_id: one of `registered()`.
      params: parameters of the environment, or arguments of its constructor (`is_slippery`).

    Raises:
      ValueError: see `from_object`; or the environment cannot be had, MNIST's data for one.
    """
    gymnax = load_gymnax()
    try:
        env, env_params = gymnax.make(env_id)
        known = inspect.signature(type(env).__init__).parameters
        arguments = {
            key: params.pop(key)
            for key in list(params)
            if key in known and not hasattr(env_params, key)
        }
        if arguments:
            env, env_params = gymnax.make(env_id, **arguments)
    except OSError as error:
        raise ValueError(
            f"{env_id} loads data that is not there ({error}): put the four files of MNIST into "
            "/tmp/mnist, where gymnax looks for them."
        ) from None
    made = from_object(env, env_params, **params)
    return made._replace(spec=made.spec._replace(env_id=env_id))


def from_object(env: Any, env_params: Any = None, **params: Any) -> Env:
    """A gymnax environment object as an `Env` that does not reset.

    Rewards become float32. Numbers that `reset_env` writes as Python's (`time=0`) become arrays
    of a fixed dtype, or else the first step would compile twice.

    Args:
      env: has `reset_env(key, params)`, `step_env(key, state, action, params)`, `is_truncated`.
      env_params: its parameters; the object's defaults where None.
      params: parameters to change, by name; `max_episode_steps` is the time limit, whether the
        environment has one or not.

    Raises:
      ValueError: an object of the API before gymnax 1.0, a parameter that the environment does
        not have, or a space that is neither discrete nor a box.
    """
    name = _checked_name(env)
    env_params = env.default_params if env_params is None else env_params
    limit = params.pop("max_episode_steps", None)
    if limit is not None and hasattr(env_params, "max_steps_in_episode"):
        params["max_steps_in_episode"] = limit
    env_params = _changed(name, env_params, params) if params else env_params
    spec = _spec(env, env_params, name)

    def reset(key):
        obs, state = env.reset_env(key, env_params)
        return _typed(state), _typed(obs)

    def step(state, action, key):
        told = env.step_env(key, state, action, env_params)
        if len(told) != 5:
            raise ValueError(
                f"`step_env` of {name} returns {len(told)} values, but it must return 5: "
                "obs, state, reward, terminated, info."
            )
        obs, state, reward, terminated, info = told
        cut = env.is_truncated(state, env_params)
        truncated = jnp.logical_and(cut, jnp.logical_not(terminated))
        info = {key: value for key, value in info.items() if key != "discount"}
        reward, obs = jnp.asarray(reward, jnp.float32), _typed(obs)
        return _typed(state), Step(obs, reward, terminated, truncated, obs, info)

    made = Env(spec, reset, step)
    if limit is None or hasattr(env_params, "max_steps_in_episode"):
        return made
    return time_limit(made, limit)


def _typed(tree: Any) -> Any:
    """Every leaf as an array of a fixed dtype, not of Python's weak type."""

    def typed(leaf):
        if is_key(leaf):
            return leaf
        return jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype)

    return jax.tree.map(typed, tree)


def _checked_name(env: Any) -> str:
    """The name of a gymnax object, if it is one and of the API since 1.0."""
    if isinstance(env, type):
        raise ValueError(f"{env.__name__} is a class: give an environment, {env.__name__}().")
    name = str(getattr(env, "name", type(env).__name__))
    wanted = ("reset_env", "step_env", "action_space", "observation_space", "default_params")
    if missing := [method for method in wanted if not hasattr(env, method)]:
        raise ValueError(
            f"{name} has no `{missing[0]}`: an environment is an id, an `rljax.Env`, or an object "
            "with gymnax's methods."
        )
    base = load_gymnax().environments.environment.Environment
    # written for the old base class, run on the new one, it would end its episodes at the time
    # limit as if the task had ended there, and say nothing
    terminal, terminated = (
        isinstance(env, base) and getattr(type(env), method) is not getattr(base, method)
        for method in ("is_terminal", "is_terminated")
    )
    if not hasattr(env, "is_truncated") or (terminal and not terminated):
        raise ValueError(
            f"{name} is written for gymnax before 1.0, whose `done` hides which episodes a time "
            "limit cut: let `step_env` return termination alone, call it `is_terminated` instead "
            "of `is_terminal`, and give it `is_truncated(state, params)`."
        )
    return name


def _changed(name: str, env_params: Any, params: dict[str, Any]) -> Any:
    """Parameters with some of them changed, read as the types of the old ones."""
    known = {key: getattr(env_params, key) for key in vars(env_params)}
    for key in params:
        if key not in known:
            raise unknown_key(key, known, name)
    kinds = {key: type(known[key]) for key in params}
    read = {
        key: convert(key, value, kinds[key]) if kinds[key] in (bool, int, float) else value
        for key, value in params.items()
    }
    return dataclasses.replace(env_params, **read)


def _spec(env: Any, env_params: Any, name: str) -> EnvSpec:
    action = env.action_space(env_params)
    observation = env.observation_space(env_params)
    shape = getattr(observation, "shape", None)
    if shape is None:
        raise ValueError(
            f"{name} observes a {type(observation).__name__}, which fits no network of rljax: "
            "wrap it so that it observes one array."
        )
    limit = int(getattr(env_params, "max_steps_in_episode", 0))
    num_states = int(getattr(observation, "n", 0))
    pixels = getattr(observation, "dtype", None) == np.uint8
    spec = EnvSpec(
        tuple(shape), num_states=num_states, max_episode_steps=limit, env_id=name,
        obs_dtype="uint8" if pixels else "float32",
    )  # fmt: skip
    if hasattr(action, "n"):
        return spec._replace(num_actions=int(action.n))
    if not hasattr(action, "low"):
        raise ValueError(
            f"{name} acts in a {type(action).__name__}: rljax needs a Discrete or a Box space."
        )
    low, high = (
        np.broadcast_to(np.asarray(x, np.float32), action.shape) for x in (action.low, action.high)
    )
    return spec._replace(action_shape=tuple(action.shape), action_low=low, action_high=high)
