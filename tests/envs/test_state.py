"""The state of the environment beside the observation."""

import jax
import numpy as np
import pytest

import rljax
from rljax.envs import time_limit, wrappers
from rljax.envs.state import show_state

pytestmark = pytest.mark.usefixtures("quick_compiles")


def test_the_simulator_repeats_what_the_environment_does():
    """From the observed state, the same action and noise give the same step, across resets."""
    env = show_state(rljax.make("CartPole-v1", max_episode_steps=7))
    simulator = env.spec.simulator
    state, obs = env.reset(jax.random.key(0))
    step, simulate = jax.jit(env.step), jax.jit(simulator.step)
    num_ends = 0
    for noise in env.sample_noise(jax.random.key(1), 20):
        action = int(obs.obs[2] > 0)
        _, imagined = simulate(obs.state, action, noise)
        state, real = step(state, action, noise)
        for name in ("reward", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(imagined, name), getattr(real, name))
        np.testing.assert_array_equal(imagined.next_obs, real.next_obs.obs)
        np.testing.assert_array_equal(state.env.time, real.obs.state.time)
        num_ends += int(real.truncated)
        obs = real.obs
    assert num_ends == 2


def test_wrappers_after_the_reset_do_not_show_the_wrong_state():
    env = rljax.make("rljax/Maze")
    assert env.before_reset is not None
    assert wrappers.record_episodes(env).before_reset is None
    assert time_limit(env, 5).before_reset is None
    with pytest.raises(ValueError, match="already a batch"):
        show_state(rljax.build("rljax/Maze", 2))
