"""The environment that carries the memory of a recurrent agent."""

import jax
import jax.numpy as jnp
import numpy as np
from probes import walk

from rljax.envs import wrapped
from rljax.envs.memory import carry_memory


def test_a_memory_lasts_for_one_episode():
    initial = jnp.full(4, 0.5)
    env = carry_memory(walk(), initial)
    state, obs = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(obs.memory, initial)
    env_step, ends = jax.jit(env.step), 0
    for t in range(30):
        memory = jnp.full(4, float(t + 1))
        state, step = env_step(state, (jnp.int32(1), memory), jax.random.key(t))
        done = bool(step.terminated | step.truncated)
        np.testing.assert_array_equal(step.next_obs.memory, memory)  # before the reset
        np.testing.assert_array_equal(step.obs.memory, initial if done else memory)
        np.testing.assert_array_equal(state.memory, step.obs.memory)
        ends += done
    assert ends > 3
    assert wrapped.innermost(state) is state.env
