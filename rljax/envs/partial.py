"""Environments that hide a part of what they would show: who is to act well must remember.

`partial/CartPole-v1` is CartPole without its velocities, and so for the other tasks of that kind.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from rljax.envs import gymnax
from rljax.types import Env

KEPT = {  # the positions and angles; what is hidden is how fast they change
    "CartPole-v1": (0, 2), "Pendulum-v1": (0, 1), "Acrobot-v1": (0, 1, 2, 3),
    "MountainCar-v0": (0,), "MountainCarContinuous-v0": (0,),
}  # fmt: skip


def observe_only(env: Env, keep: Sequence[int]) -> Env:
    """Shows only the numbers of an observation, a vector, whose indices are in `keep`.

    Raises:
      ValueError: observations are no vector, or an index is not one of its.
    """
    shape, keep = env.spec.obs_shape, tuple(keep)
    if len(shape) != 1:
        raise ValueError(f"`observe_only` needs a vector, but {env.spec.env_id} observes {shape}.")
    if not keep or not all(0 <= index < shape[0] for index in keep):
        raise ValueError(f"`keep` is {keep}, but it must hold indices from 0 to {shape[0] - 1}.")
    indices = jnp.array(keep)

    def reset(key):
        state, obs = env.reset(key)
        return state, obs[indices]

    def step(state, action, key):
        state, step = env.step(state, action, key)
        return state, step._replace(obs=step.obs[indices], next_obs=step.next_obs[indices])

    return env._replace(spec=env.spec._replace(obs_shape=(len(keep),)), reset=reset, step=step)


def registered() -> list[str]:
    """The names that this suite knows."""
    return list(KEPT)


def from_id(name: str, **params: Any) -> Env:
    """A gymnax environment without its velocities; does not reset itself."""
    env = observe_only(gymnax.from_id(name, **params), KEPT[name])
    return env._replace(spec=env.spec._replace(env_id=f"partial/{name}"))
