"""Parts that several adapters of suites share."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import convert, unknown_key
from rljax.envs.wrappers import time_limit
from rljax.ops import random
from rljax.types import Array, Env, EnvSpec, PyTree, Step, is_key


def checked_params(
    params: Mapping[str, Any], known: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """Returns parameters after converting numbers and bools to the types of the known values.

    Args:
      params: new values, by name.
      known: present values, by name.
      name: of the environment, for errors.

    Raises:
      ValueError: a parameter is not known, or a value cannot be converted.

    Example:
      >>> checked_params({"size": "8"}, {"size": 5}, "Room")
      {'size': 8}
    """
    for key in params:
        if key not in known:
            raise unknown_key(key, dict.fromkeys([*known, "max_episode_steps"]), name)
    kinds = {key: type(known[key]) for key in params}
    return {
        key: convert(key, value, kinds[key]) if kinds[key] in (bool, int, float, str) else value
        for key, value in params.items()
    }


def only_time_limit(env_params: Any, params: Mapping[str, Any], default: int, name: str) -> int:
    """Returns the time limit of an environment object that takes no other parameter.

    Args:
      env_params: must be None: the object holds its parameters itself.
      params: must hold `max_episode_steps` alone, or nothing.
      default: the time limit if none is given; 0 for none.
      name: of the environment, for errors.

    Raises:
      ValueError: there is another parameter.
    """
    if env_params is not None:
        raise ValueError(f"{name} has no parameter object: leave out `env_params`.")
    known = {"max_episode_steps": default}
    return (known | checked_params(params, known, name))["max_episode_steps"]


def one_hot(codes: Array, sizes: Sequence[int]) -> Array:
    """Returns K codes as one-hot vectors side by side, `[..., K] -> [..., sum(sizes)]` bool.

    Args:
      codes: integers; code k is from 0 to `sizes[k] - 1`.
      sizes: number of categories of each code.

    Example:
      >>> one_hot(jnp.array([1, 0]), (2, 3)).astype(int).tolist()
      [0, 1, 1, 0, 0]
    """
    categories = np.concatenate([np.arange(size) for size in sizes])
    which = np.repeat(np.arange(len(sizes)), sizes)
    axes = (1,) * (codes.ndim - 1)
    return codes[..., which].astype(jnp.int32) == categories.reshape(*axes, -1)


def strongly_typed(tree: PyTree) -> PyTree:
    """Converts every leaf to an array whose dtype is not weak, as a Python number's would be.

    The state of an environment otherwise changes its type at the first step, which is then
    compiled twice.
    """

    def convert_leaf(leaf):
        if is_key(leaf):
            return leaf
        return jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype)

    return jax.tree.map(convert_leaf, tree)


def spec_fields(obs: PyTree) -> dict[str, PyTree]:
    """Returns `obs_shape` and `obs_dtype` of an observation, as arguments of `EnvSpec`."""
    return {
        "obs_shape": jax.tree.map(lambda x: tuple(x.shape), obs),
        "obs_dtype": jax.tree.map(lambda x: x.dtype.name, obs),
    }


def simulation(env: Any, name: str, max_episode_steps: int) -> Env:
    """Returns an environment object of brax or MuJoCo Playground as an `Env` with a time limit.

    Its `done` is termination. Actions are from -1 to 1 in every dimension.

    Args:
      env: has `reset(key) -> state`, `step(state, action) -> state` and `action_size`; a state
        has `obs`, `reward` and `done`.
      name: name in messages.
      max_episode_steps: the time limit.
    """

    def outputs(state):
        state = strongly_typed(state)
        return state.replace(reward=state.reward.astype(jnp.float32)), state.obs

    def reset(key):
        return outputs(env.reset(key))

    def step(state, action, key):
        state, obs = outputs(env.step(state, action))
        done = state.done.astype(bool)
        return state, Step(obs, state.reward, done, jnp.zeros_like(done), obs)

    _, obs = jax.eval_shape(reset, jax.random.key(0))
    spec = EnvSpec(action_shape=(env.action_size,), env_id=name, **spec_fields(obs))
    return time_limit(Env(spec, reset, step, random.split), max_episode_steps)
