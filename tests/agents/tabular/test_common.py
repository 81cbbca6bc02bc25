"""Acting, requirements on environments, and workers of the tabular agents."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import textbook
from textbook import random_trajectory

from rljax.agents import AGENTS
from rljax.config import field_types
from rljax.ops import planning
from rljax.types import EnvSpec, Shared, sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")

N = 10_000
TABULAR = [name for name, row in AGENTS.items() if hasattr(row.config, "initial_value")]
CONTROL = [name for name in TABULAR if hasattr(AGENTS[name].config, "eps_start")]
TIED_VALUES = np.array([0.0, 3.0, 3.0, -1.0])


def make(name, spec, **options):
    row = AGENTS[name]
    return row.make(row.config(**options), spec)


def act(agent, state, obs, key):
    return agent.act(state, obs, sample_one(agent.sample_noise, key))[0]


def action_frequencies(name, q, greedy=False, **options):
    """Returns the frequency of each action in a state with action values `q[A]`."""
    agent = make(name, EnvSpec(num_states=2, num_actions=len(q), num_envs=N), **options)
    state = agent.init(jax.random.key(0))
    table = jnp.stack([jnp.zeros(len(q)), jnp.asarray(q)])
    params = jax.tree.map(lambda x: jnp.broadcast_to(table, x.shape), state.params)
    state, obs, key = state._replace(params=params), jnp.ones(N, jnp.int32), jax.random.key(1)
    action = agent.greedy(state, obs, key) if greedy else act(agent, state, obs, key)
    assert action.dtype == jnp.int32
    return np.bincount(action, minlength=len(q)) / N


@pytest.mark.parametrize("name", CONTROL)
def test_ties_are_broken_uniformly(name):
    for greedy in (True, False):
        options = {"eps_start": 0.0, "eps_end": 0.0}
        np.testing.assert_allclose(
            action_frequencies(name, np.zeros(4), greedy, **options), 0.25, atol=0.02
        )
        np.testing.assert_allclose(
            action_frequencies(name, TIED_VALUES, greedy, **options), [0, 0.5, 0.5, 0], atol=0.02
        )


def test_epsilon_is_the_probability_of_a_random_action():
    q = [0.0, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(
        action_frequencies("q_learning", q), [0.025, 0.925, 0.025, 0.025], atol=0.01
    )
    assert action_frequencies("q_learning", q, greedy=True)[1] == 1.0


def test_epsilon_is_annealed_linearly():
    options = {"eps_start": 1.0, "eps_end": 0.05, "exploration_fraction": 0.5}
    spec = EnvSpec(num_states=1, num_actions=2, num_envs=N)
    agent = make("q_learning", spec, total_timesteps=2000, **options)
    state = agent.init(jax.random.key(0))
    state = state._replace(params=state.params._replace(q=jnp.array([[0.0, 1.0]])))
    for count, epsilon in ((0, 1.0), (500, 0.525), (1000, 0.05), (2000, 0.05)):
        later = state._replace(num_updates=Shared(jnp.int32(count)))
        action = act(agent, later, jnp.zeros(N, jnp.int32), jax.random.key(2))
        np.testing.assert_allclose(1 - action.mean(), epsilon / 2, atol=0.015)


def test_updates_are_counted():
    agent = make("q_learning", EnvSpec(num_states=5, num_actions=3))
    state = agent.init(jax.random.key(0))
    for _ in range(2):
        state, _ = agent.update(state, random_trajectory(0, 4, 1), jax.random.key(0))
    assert int(state.num_updates.value) == 2


def test_epsilon_greedy_policy_and_value():
    q = np.array([[0.0, 3.0, 3.0, -1.0], [1.0, 2.0, 3.0, 4.0]])
    expected = [textbook.epsilon_greedy(row, 0.2) for row in q]
    policy = planning.epsilon_soft(planning.greedy(jnp.asarray(q)), 0.2)
    np.testing.assert_allclose(policy, expected, rtol=1e-6)
    value = planning.epsilon_greedy_value(jnp.asarray(q), 0.2)
    np.testing.assert_allclose(value, (expected * q).sum(axis=-1), rtol=1e-6)
    value = planning.epsilon_greedy_value(jnp.array([-4.0, 2.0]), 0.1)
    np.testing.assert_allclose(value, 1.7, rtol=1e-6)


@pytest.mark.parametrize("name", TABULAR)
def test_every_entry_starts_at_the_initial_value(name):
    spec = EnvSpec(num_states=5, num_actions=3)
    params = make(name, spec, initial_value=0.25).init(jax.random.key(0)).params
    assert (params.q.shape == (5, 3)) if name in CONTROL else (params.v.shape == (5,))
    for leaf in jax.tree.leaves(params):
        assert (np.asarray(leaf) == 0.25).all()


@pytest.mark.parametrize("name", TABULAR)
def test_environments_without_numbered_states_are_rejected(name):
    for spec in (EnvSpec((4,), 2), EnvSpec((), 0, num_states=3), EnvSpec((2,), 2, num_states=3)):
        with pytest.raises(ValueError, match="needs numbered states and discrete actions"):
            make(name, spec)


@pytest.mark.parametrize("name", TABULAR)
def test_workers_average_their_changes_of_the_table(name):
    row, num_workers = AGENTS[name], 3
    spec = EnvSpec(num_states=5, num_actions=3)
    options = {"planning_steps": 3} if "planning_steps" in field_types(row.config) else {}
    config = row.config(**options)
    trajectories = [random_trajectory(i, 20, 1) for i in range(num_workers)]
    key = jax.random.key(0)
    single = row.make(config, spec)
    start = single.init(key)
    single_params = [single.update(start, x, key)[0].params for x in trajectories]
    parallel = row.make(config, spec, average=partial(jax.lax.pmean, axis_name="workers"))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *trajectories)
    update = jax.vmap(parallel.update, (None, 0, None), axis_name="workers")
    state, _ = update(start, stacked, key)
    for got, *own in zip(*map(jax.tree.leaves, (state.params, *single_params)), strict=True):
        assert (got == got[:1]).all()
        np.testing.assert_allclose(got[0], np.mean(own, axis=0), rtol=1e-5, atol=1e-6)
        assert np.abs(got).max() > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [("sarsa", {"eps_start": 1.5}, "`eps_start` is 1.5, but it must be"),
     ("n_step_sarsa", {"n_step": 0}, "`n_step` is 0, but it must be at least 1"),
     ("q_lambda", {"trace_lambda": -0.1}, "`trace_lambda` is -0.1"),
     ("sarsa_lambda", {"trace": "replace"}, "did you mean 'replacing'"),
     ("dyna_q", {"planning_steps": -1}, "`planning_steps` is -1"),
     ("dyna_q", {"sampling": "pair"}, "did you mean 'pairs'")],
)  # fmt: skip
def test_options_out_of_range_are_rejected(name, options, message):
    with pytest.raises(ValueError, match=message):
        AGENTS[name].config(**options)
