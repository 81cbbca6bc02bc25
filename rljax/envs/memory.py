"""The memory of a recurrent agent, carried in the environment's state.

Observations become `RecurrentObs(obs, memory)` and actions `(action, new memory)`. So auto-reset
also resets the memory, trajectories store it, and the training loop need not know about it.
"""

from typing import NamedTuple

import jax.numpy as jnp

from rljax.envs.wrappers import inner_render
from rljax.types import Array, Env, PyTree, RecurrentObs


class MemoryState(NamedTuple):
    """The state of `carry_memory`."""

    env: PyTree
    memory: Array


def carry_memory(env: Env, initial: Array) -> Env:
    """Adds a memory to a self-resetting environment; each episode starts with `initial`.

    Args:
      env: a single environment.
      initial: memory at the start of an episode, `[H]`.

    Returns:
      An environment with observations `RecurrentObs(obs, memory)` and actions
      `(action, new memory)`.
    """

    def reset(key):
        state, obs = env.reset(key)
        return MemoryState(state, initial), RecurrentObs(obs, initial)

    def step(state, action, noise):
        action, memory = action
        inner, step = env.step(state.env, action, noise)
        kept = jnp.where(step.terminated | step.truncated, initial, memory)
        obs, next_obs = RecurrentObs(step.obs, kept), RecurrentObs(step.next_obs, memory)
        return MemoryState(inner, kept), step._replace(obs=obs, next_obs=next_obs)

    return env._replace(reset=reset, step=step, render=inner_render(env))
