"""Training for a number of episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import coin

from rljax.envs import wrappers
from rljax.training.episodes import learn_episodes
from rljax.training.learner import make_learner
from rljax.types import Agent

pytestmark = pytest.mark.usefixtures("quick_compiles")

R, E = 8, 7  # runs and episodes


def counting_learner():
    """Returns a learner that counts its updates; episodes have 1 or 10 steps."""
    agent = Agent(
        lambda key: jnp.int32(0), lambda state, obs, key: (jnp.zeros(1, jnp.int32), ()),
        lambda state, obs, key: jnp.zeros(1, jnp.int32),
        lambda state, trajectory, key: (state + 1, {"losses/nothing": jnp.float32(0)}),
    )  # fmt: skip
    return make_learner(agent, wrappers.batched(coin(), 1), 1)


def test_records_the_first_episodes_of_every_run():
    learner, keys = counting_learner(), jax.random.split(jax.random.key(0), R)
    learn = jax.jit(lambda keys: learn_episodes(learner, keys, E, record=lambda s: s.agent))
    episodes = learn(keys)
    assert set(np.unique(episodes.lengths)) == {1, 10}
    np.testing.assert_array_equal(episodes.returns, episodes.lengths)
    np.testing.assert_array_equal(episodes.recorded, episodes.lengths.cumsum(axis=1))
    slowest = int(episodes.lengths.sum(axis=1).max())
    # all runs learn until the last one has finished
    np.testing.assert_array_equal(episodes.state.agent, slowest)
    assert (episodes.num_finished >= E).all() and (episodes.lengths.sum(axis=1) < slowest).any()
    for i in range(R):  # a run does not depend on the others
        single = jax.jit(lambda keys: learn_episodes(learner, keys, E))(keys[i : i + 1])
        np.testing.assert_array_equal(single.lengths[0], episodes.lengths[i])


def test_stops_after_max_updates():
    learner, keys = counting_learner(), jax.random.split(jax.random.key(0), R)
    episodes = jax.jit(lambda keys: learn_episodes(learner, keys, 100, max_updates=15))(keys)
    np.testing.assert_array_equal(episodes.state.agent, 15)
    assert (episodes.num_finished < 100).all()
    np.testing.assert_array_equal(episodes.lengths.sum(axis=1), 15)
