"""An agent that records its inputs, and trajectories for it: for tests of `Agent -> Agent`."""

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import Agent, EnvSpec, Transition

T, B, SIZE = 6, 3, 2
SPEC = EnvSpec(obs_shape=(SIZE,), action_shape=(SIZE,), num_envs=B)
KEY = jax.random.key(0)


def recorder_init(key):
    del key
    zeros = jnp.zeros((T, B))
    ends = zeros.astype(bool)
    return Transition(zeros[..., None], zeros, zeros, ends, ends, zeros[..., None])


# the state is the last trajectory, an action is the observation
RECORDER = Agent(
    init=recorder_init,
    act=lambda state, obs, noise: (obs, {"obs": obs, "noise": noise}),
    greedy=lambda state, obs, key: obs,
    update=lambda state, trajectory, key: (trajectory, {"losses/reward": trajectory.reward.mean()}),
    sample_noise=lambda key, num_steps: ["noise"] * num_steps,
)


def make_trajectory(seed, offset=5.0):
    """Returns random steps with terminations and truncations; observations have mean `offset`."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(offset, 2.0, (2, T, B, SIZE)).astype(np.float32)
    reward = rng.normal(1.0, 3.0, (T, B)).astype(np.float32)
    end = rng.random((T, B))
    ends = jnp.asarray(end < 0.2), jnp.asarray(end > 0.7)
    action, reward = jnp.zeros((T, B, SIZE)), jnp.asarray(reward)
    return Transition(jnp.asarray(obs), action, reward, *ends, jnp.asarray(next_obs))
