"""Partially observable environments: tasks that need a memory.

`partial/CartPole-v1` is CartPole-v1 without the velocities in its observations; `VISIBLE` lists
all environments of the suite. `observe_only` hides components of any other environment.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from rljax.envs import gymnax
from rljax.types import Env

VISIBLE = {  # indices of the positions and angles; the others are velocities
    "CartPole-v1": (0, 2), "Pendulum-v1": (0, 1), "Acrobot-v1": (0, 1, 2, 3),
    "MountainCar-v0": (0,), "MountainCarContinuous-v0": (0,),
}  # fmt: skip


def observe_only(env: Env, keep: Sequence[int]) -> Env:
    """Hides all components of an observation vector except those with an index in `keep`.

    Args:
      env: a single environment with observations `[D]`.
      keep: indices from 0 to D - 1, in the order in which they are observed.

    Raises:
      ValueError: observations are not vectors, or `keep` holds an index out of range.

    Example:
      >>> from rljax.envs import make
      >>> env = observe_only(make("CartPole-v1"), (0, 2))
      >>> env.spec.obs_shape
      (2,)
    """
    shape, keep = env.spec.obs_shape, tuple(keep)
    if len(shape) != 1:
        raise ValueError(
            f"`observe_only` needs observations that are vectors, but those of {env.spec.env_id} "
            f"have shape {shape}."
        )
    if not keep or not all(0 <= index < shape[0] for index in keep):
        raise ValueError(f"`keep` is {keep}, but it must hold indices from 0 to {shape[0] - 1}.")
    indices = jnp.array(keep)

    def reset(key):
        state, obs = env.reset(key)
        return state, obs[indices]

    def step(state, action, noise):
        state, step = env.step(state, action, noise)
        return state, step._replace(obs=step.obs[indices], next_obs=step.next_obs[indices])

    spec = env.spec._replace(obs_shape=(len(keep),), termination=None)  # a rule of all numbers
    return env._replace(spec=spec, reset=reset, step=step)


def registered() -> list[str]:
    """Returns the names of all environments in this suite."""
    return list(VISIBLE)


parameters = gymnax.parameters


def from_id(name: str, **params: Any) -> Env:
    """Returns a gymnax environment without its velocities; its `step` does not reset."""
    env = observe_only(gymnax.from_id(name, **params), VISIBLE[name])
    return env._replace(spec=env.spec._replace(env_id=f"partial/{name}"))
