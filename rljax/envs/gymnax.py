"""Adapter for gymnax environments (gymnax >= 1.0), https://github.com/RobertTLange/gymnax.

gymnax's `step` computes a reset of every environment at every step. The adapter calls
`step_env`, which does not reset, and leaves resets to `wrappers.auto_reset`. Truncation is
gymnax's `is_truncated`. Around a wrapped environment the wrappers stay: they step an environment
that does not reset (`_SingleEpisode`).
"""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from rljax.config import convert, kind_of, unknown_key
from rljax.envs.adapters import strongly_typed
from rljax.envs.gymnax_import import load_gymnax
from rljax.envs.terminations import rule_of
from rljax.envs.wrappers import time_limit
from rljax.ops import random
from rljax.types import Env, EnvSpec, Step

INFO_OF_STEP = ("discount", "terminated", "truncated", "final_observation")  # also in `Step`
MNIST = Path("/tmp/mnist")  # where gymnax looks for the data set
MNIST_FILES = tuple(
    f"{part}-{kind}.gz"
    for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
)  # fmt: skip


def registered() -> list[str]:
    """Returns the ids of all environments that are registered in gymnax."""
    return list(load_gymnax().registered_envs)


def unavailable(env_id: str) -> str:
    """Returns why an environment cannot be made, as a sentence; empty if it can.

    gymnax would download it. rljax opens no network connection by itself.
    """
    if env_id != "MNISTBandit-bsuite":
        return ""
    missing = ", ".join(name for name in MNIST_FILES if not (MNIST / name).is_file())
    return missing and f"{env_id} needs the data set MNIST: put {missing} into {MNIST}."


def from_id(env_id: str, **params: Any) -> Env:
    """Returns a registered gymnax environment as an `Env` whose `step` does not reset.

    Args:
      env_id: one of `registered()`.
      params: parameters of the environment, or arguments of its constructor (`is_slippery`).

    Raises:
      ValueError: see `from_object`; or a data file of the environment is missing.
    """
    if reason := unavailable(env_id):
        raise ValueError(reason)
    gymnax = load_gymnax()
    env, env_params = gymnax.make(env_id)
    known = inspect.signature(type(env).__init__).parameters
    arguments = {
        key: params.pop(key)
        for key in list(params)
        if key in known and not hasattr(env_params, key)
    }
    if arguments:
        env, env_params = gymnax.make(env_id, **arguments)
    made = from_object(env, env_params, **params)
    return made._replace(spec=made.spec._replace(env_id=env_id))


def parameters(env_id: str) -> dict[str, Any]:
    """Returns the parameters of an environment and their defaults."""
    return {name: _plain(value) for name, value in vars(load_gymnax().make(env_id)[1]).items()}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def changed_params(env_id: str, env_params: Any) -> dict[str, Any]:
    """Returns the parameters that differ from the defaults of an environment, by name.

    Raises:
      ValueError: `env_params` is not a parameter object of this environment.
    """
    default = load_gymnax().make(env_id)[1]
    if type(env_params) is not type(default):
        raise ValueError(
            f"`env_params` is {kind_of(env_params)}, but the parameters of {env_id} are "
            f"{kind_of(default)}, or a mapping of names to values."
        )
    pairs = ((name, value, getattr(default, name)) for name, value in vars(env_params).items())
    changed = {name: value for name, value, old in pairs if not np.array_equal(value, old)}
    if "max_steps_in_episode" in changed:
        changed["max_episode_steps"] = changed.pop("max_steps_in_episode")
    return changed


def from_object(env: Any, env_params: Any = None, **params: Any) -> Env:
    """Returns a gymnax environment object as an `Env` whose `step` does not reset.

    Rewards become float32. Python numbers in the state (`time=0`) become arrays of a fixed
    dtype; otherwise the first step would be compiled twice.

    Args:
      env: has `reset_env(key, params)`, `step_env(key, state, action, params)`, `is_truncated`.
      env_params: its parameters; None takes `env.default_params`.
      params: parameters to change, by name; `max_episode_steps` sets the time limit, also of an
        environment without one.

    Raises:
      ValueError: not a gymnax environment, one written for gymnax before 1.0, an unknown
        parameter, or a space that is neither discrete nor a box.
    """
    name = _check_object(env)
    env_params = env.default_params if env_params is None else env_params
    limit = params.pop("max_episode_steps", None)
    if limit is not None and hasattr(env_params, "max_steps_in_episode"):
        params["max_steps_in_episode"] = limit
    env_params = _replace_params(name, env_params, params) if params else env_params
    spec = _spec_of(env, env_params, name)
    single = _without_auto_reset(env)

    def reset(key):
        obs, state = single.reset(key, env_params)
        return strongly_typed(state), strongly_typed(obs)

    def step(state, action, key):
        outputs = single.step(key, state, action, env_params)
        if len(outputs) != 6:
            raise ValueError(
                f"`step` of {type(env).__name__} around {name} returns {len(outputs)} values, but "
                "it must return 6: obs, state, reward, terminated, truncated, info."
            )
        obs, state, reward, terminated, time_is_up, info = outputs
        truncated = jnp.logical_and(time_is_up, jnp.logical_not(terminated))
        info = {key: value for key, value in info.items() if key not in INFO_OF_STEP}
        reward, obs = jnp.asarray(reward, jnp.float32), strongly_typed(obs)
        return strongly_typed(state), Step(obs, reward, terminated, truncated, obs, info)

    made = Env(spec, reset, step, random.split)
    if limit is None or hasattr(env_params, "max_steps_in_episode"):
        return made
    return time_limit(made, limit)


class _SingleEpisode:
    """A gymnax environment with the interface of `reset` and `step`, which does not reset."""

    def __init__(self, env: Any):
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, key, params=None):
        return self._env.reset_env(key, self._env.default_params if params is None else params)

    def step(self, key, state, action, params=None):
        params = self._env.default_params if params is None else params
        outputs = self._env.step_env(key, state, action, params)
        if len(outputs) != 5:
            raise ValueError(
                f"`step_env` of {_name_of(self._env)} returns {len(outputs)} values, but it must "
                "return 5: obs, state, reward, terminated, info."
            )
        obs, state, reward, terminated, info = outputs
        truncated = self._env.is_truncated(state, params)
        ended = {"terminated": terminated, "truncated": truncated, "final_observation": obs}
        return obs, state, reward, terminated, truncated, {**info, **ended}


def _is_wrapper(env: Any) -> bool:
    """Whether an object holds another environment as `_env` and has no `step_env` of its own."""
    return "_env" in getattr(env, "__dict__", ()) and not hasattr(type(env), "step_env")


def _without_auto_reset(env: Any) -> Any:
    """Returns an environment, or a copy of its wrappers, in which no episode is reset."""
    if not _is_wrapper(env):
        return _SingleEpisode(env)
    wrapper = object.__new__(type(env))  # `copy.copy` asks `__getattr__`, which needs `_env`
    vars(wrapper).update(vars(env), _env=_without_auto_reset(env._env))
    return wrapper


def _name_of(env: Any) -> str:
    return str(getattr(env, "name", type(env).__name__))


def _check_object(env: Any) -> str:
    """Checks that an object has the methods of gymnax 1.0; returns its name."""
    if isinstance(env, type):
        raise ValueError(
            f"`env` is the class {env.__name__}, but it must be an environment. Pass an instance, "
            f"`{env.__name__}()`."
        )
    name = _name_of(env)
    methods = ("reset_env", "step_env", "action_space", "observation_space", "default_params")
    missing = [method for method in methods if not hasattr(env, method)]
    if not (hasattr(env, "reset_env") or hasattr(env, "step_env")):
        raise ValueError(
            f"`env` is {_shorten(env)} of type {type(env).__name__}, but it must be an id such as "
            '"CartPole-v1", an `rljax.Env`, or a gymnax environment.'
        )
    if missing:
        raise ValueError(
            f"{name} has no `{missing[0]}`, which a gymnax environment must have. Add it, or pass "
            "an `rljax.Env`."
        )
    while _is_wrapper(env):
        _check_wrapper(env, name)
        env = env._env
    base = load_gymnax().environments.environment.Environment
    # an environment for the old base class runs on the new one, but then reports the time limit
    # as termination
    terminal, terminated = (
        isinstance(env, base) and getattr(type(env), method) is not getattr(base, method)
        for method in ("is_terminal", "is_terminated")
    )
    if not hasattr(env, "is_truncated") or (terminal and not terminated):
        raise ValueError(
            f"{name} is written for gymnax before 1.0, whose `done` does not separate termination "
            "from truncation. Rename `is_terminal` to `is_terminated`, return only termination "
            "from `step_env`, and add `is_truncated(state, params)`."
        )
    return name


def _check_wrapper(env: Any, name: str) -> None:
    """Checks that `step` of a wrapper is called as that of gymnax."""
    arguments = list(inspect.signature(env.step).parameters)[:4]
    if arguments[1:] != ["state", "action", "params"]:
        raise ValueError(
            f"`step` of {type(env).__name__} around {name} takes ({', '.join(arguments)}), but "
            "that of gymnax takes (key, state, action, params): pass the environment without this "
            "wrapper."
        )


def _shorten(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else text[:37] + "..."


def _replace_params(name: str, env_params: Any, params: dict[str, Any]) -> Any:
    """Replaces parameters by new values, converted to the types of the old ones."""
    known = {key: getattr(env_params, key) for key in vars(env_params)}
    for key in params:
        if key not in known:
            raise unknown_key(key, known, name)
    types_of = {key: type(known[key]) for key in params}
    converted = {
        key: convert(key, value, types_of[key]) if types_of[key] in (bool, int, float) else value
        for key, value in params.items()
    }
    return dataclasses.replace(env_params, **converted)


def _spec_of(env: Any, env_params: Any, name: str) -> EnvSpec:
    action = env.action_space(env_params)
    observation = env.observation_space(env_params)
    shape = getattr(observation, "shape", None)
    if shape is None:
        raise ValueError(
            f"{name} has observations in a {type(observation).__name__} space, which no network "
            "of rljax takes. Wrap it so that an observation is one array."
        )
    limit = int(getattr(env_params, "max_steps_in_episode", 0))
    num_states = int(getattr(observation, "n", 0))
    pixels = getattr(observation, "dtype", None) == np.uint8
    spec = EnvSpec(
        tuple(map(int, shape)), num_states=num_states, max_episode_steps=limit, env_id=name,
        obs_dtype="uint8" if pixels else "float32", termination=rule_of(env, env_params),
    )  # fmt: skip
    if hasattr(action, "n"):
        return spec._replace(num_actions=int(action.n))
    if not hasattr(action, "low"):
        raise ValueError(
            f"{name} has actions in a {type(action).__name__} space, but rljax needs a Discrete "
            "or a Box space."
        )
    low, high = (
        np.broadcast_to(np.asarray(x, np.float32), action.shape) for x in (action.low, action.high)
    )
    return spec._replace(action_shape=tuple(action.shape), action_low=low, action_high=high)
