"""Memory without touching the loop: it is carried in the environment's state.

Observations become `Remembered(obs, memory)`, actions `(action, new memory)`. So auto-reset resets
the memory, trajectories store it, and acting is one step of a network (`recurrent_networks`).
"""

from typing import NamedTuple

import jax.numpy as jnp

from rljax.types import Array, Env, PyTree


class Remembered(NamedTuple):
    """What an agent with a memory observes."""

    obs: PyTree  # [..., *obs_shape]
    memory: Array  # [..., H], of the steps of this episode before


class Remembering(NamedTuple):
    """The state of `remembering`."""

    env: PyTree
    memory: Array


def remembering(env: Env, initial: Array) -> Env:
    """Carries a memory beside an environment that resets itself; episodes begin with `initial`."""

    def reset(key):
        state, obs = env.reset(key)
        return Remembering(state, initial), Remembered(obs, initial)

    def step(state, action, key):
        action, memory = action
        inner, step = env.step(state.env, action, key)
        kept = jnp.where(step.terminated | step.truncated, initial, memory)
        obs, next_obs = Remembered(step.obs, kept), Remembered(step.next_obs, memory)
        return Remembering(inner, kept), step._replace(obs=obs, next_obs=next_obs)

    render = env.render and (lambda state: env.render(state.env))  # type: ignore[misc]
    return env._replace(reset=reset, step=step, render=render)
