"""The memory of a recurrent agent, carried in the environment's state.

Observations become `RecurrentObs(obs, memory)` and actions `(action, new memory)`. Resets then
reset the memory, trajectories store it, and the training loop is the same for all agents.
"""

from typing import NamedTuple

import jax.numpy as jnp

from rljax.envs.wrapped import inner_functions
from rljax.types import Array, Env, PyTree, RecurrentObs


class MemoryState(NamedTuple):
    """The state of `carry_memory`.

    Attributes:
      env: state of the wrapped environment.
      memory: memory after the previous steps of the episode, `[H]`.
    """

    env: PyTree
    memory: Array


def carry_memory(env: Env, initial: Array) -> Env:
    """Adds a memory to an environment; each episode starts with `initial`.

    Args:
      env: a single environment that resets itself.
      initial: memory at the start of an episode, `[H]`.

    Returns:
      An environment with observations `RecurrentObs(obs, memory)` and actions
      `(action, new memory)`.

    Example:
      >>> import jax
      >>> from rljax.envs import make
      >>> env = carry_memory(make("rljax/Treasure"), jnp.zeros(2))
      >>> state, obs = env.reset(jax.random.key(0))
      >>> noise = env.sample_noise(jax.random.key(1), 1)[0]
      >>> state, step = env.step(state, (1, jnp.array([0.5, -0.5])), noise)
      >>> int(step.obs.obs), step.obs.memory.tolist()
      (1, [0.5, -0.5])
    """

    def reset(key):
        state, obs = env.reset(key)
        return MemoryState(state, initial), RecurrentObs(obs, initial)

    def step(state, action, noise):
        action, memory = action
        inner, step = env.step(state.env, action, noise)
        done = (step.terminated | step.truncated)[..., None]
        next_memory = jnp.where(done, initial, memory)
        obs = RecurrentObs(step.obs, next_memory)
        next_obs = RecurrentObs(step.next_obs, memory)
        return MemoryState(inner, next_memory), step._replace(obs=obs, next_obs=next_obs)

    def copies(num_envs):
        return jnp.broadcast_to(initial, (num_envs, *initial.shape))

    on_host = env.batch
    batch = on_host and (lambda num_envs: carry_memory(on_host(num_envs), copies(num_envs)))
    functions = inner_functions(env) | {"observe": None}
    return env._replace(reset=reset, step=step, batch=batch, **functions)
