"""Learning counted in episodes."""

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

R, E = 8, 7


def counting():
    """An agent that counts its updates, in an environment of episodes of 1 or 10 steps."""
    agent = Agent(
        lambda key: jnp.int32(0), lambda state, obs, key: (jnp.zeros(1, jnp.int32), ()),
        lambda state, obs, key: jnp.zeros(1, jnp.int32),
        lambda state, trajectory, key: (state + 1, {"losses/nothing": jnp.float32(0)}),
    )  # fmt: skip
    return make_learner(agent, wrappers.batched(coin(), 1), 1)


def test_the_first_episodes_of_everyone():
    learner, keys = counting(), jax.random.split(jax.random.key(0), R)
    played = jax.jit(lambda keys: learn_episodes(learner, keys, E, watch=lambda s: s.agent))(keys)
    assert set(np.unique(played.lengths)) == {1, 10}
    np.testing.assert_array_equal(played.returns, played.lengths)
    np.testing.assert_array_equal(played.seen, played.lengths.cumsum(axis=1))
    slowest = int(played.lengths.sum(axis=1).max())
    np.testing.assert_array_equal(played.state.agent, slowest)  # the others went on learning
    assert (played.finished >= E).all() and (played.lengths.sum(axis=1) < slowest).any()
    for i in range(R):  # each is the learner that it would be alone
        alone = jax.jit(lambda keys: learn_episodes(learner, keys, E))(keys[i : i + 1])
        np.testing.assert_array_equal(alone.lengths[0], played.lengths[i])


def test_it_stops_in_time():
    learner, keys = counting(), jax.random.split(jax.random.key(0), R)
    played = jax.jit(lambda keys: learn_episodes(learner, keys, 100, max_updates=15))(keys)
    np.testing.assert_array_equal(played.state.agent, 15)
    assert (played.finished < 100).all()
    np.testing.assert_array_equal(played.lengths.sum(axis=1), 15)
