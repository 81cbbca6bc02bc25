"""How tabular agents act, what they need of an environment, and what workers share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from textbook import numbered_trajectory, soft

from rljax.agents import AGENTS
from rljax.agents.tabular.common import soft_policy, soft_value
from rljax.config import field_types
from rljax.types import EnvSpec, Shared

pytestmark = pytest.mark.usefixtures("quick_compiles")

N = 10_000
TABULAR = [name for name, row in AGENTS.items() if hasattr(row.config, "initial_value")]
CONTROL = [name for name in TABULAR if hasattr(AGENTS[name].config, "eps_start")]
CHOICE = np.array([0.0, 3.0, 3.0, -1.0])


def make(name, spec, **options):
    row = AGENTS[name]
    return row.make(row.config(**options), spec)


def frequencies(name, row, greedy=False, **options):
    """How often each action is taken in a state with these action values."""
    agent = make(name, EnvSpec(num_states=2, num_actions=len(row), num_envs=N), **options)
    state = agent.init(jax.random.key(0))
    table = jnp.stack([jnp.zeros(len(row)), jnp.asarray(row)])
    params = jax.tree.map(lambda x: jnp.broadcast_to(table, x.shape), state.params)
    state, obs, key = state._replace(params=params), jnp.ones(N, jnp.int32), jax.random.key(1)
    action = agent.greedy(state, obs, key) if greedy else agent.act(state, obs, key)[0]
    assert action.dtype == jnp.int32
    return np.bincount(action, minlength=len(row)) / N


@pytest.mark.parametrize("name", CONTROL)
def test_equal_actions_are_taken_alike(name):  # K14d
    for greedy in (True, False):
        options = {"eps_start": 0.0, "eps_end": 0.0}
        np.testing.assert_allclose(
            frequencies(name, np.zeros(4), greedy, **options), 0.25, atol=0.02
        )
        np.testing.assert_allclose(
            frequencies(name, CHOICE, greedy, **options), [0, 0.5, 0.5, 0], atol=0.02
        )


def test_epsilon_is_the_chance_of_a_random_action():  # K14e
    values = [0.0, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(
        frequencies("q_learning", values), [0.025, 0.925, 0.025, 0.025], atol=0.01
    )
    assert frequencies("q_learning", values, greedy=True)[1] == 1.0


def test_the_chance_falls_over_a_part_of_the_run():  # K21
    options = {"eps_start": 1.0, "eps_end": 0.05, "exploration_fraction": 0.5}
    spec = EnvSpec(num_states=1, num_actions=2, num_envs=N)
    agent = make("q_learning", spec, total_timesteps=2000, **options)
    state = agent.init(jax.random.key(0))
    state = state._replace(params=state.params._replace(q=jnp.array([[0.0, 1.0]])))
    for count, epsilon in ((0, 1.0), (500, 0.525), (1000, 0.05), (2000, 0.05)):
        now = state._replace(num_updates=Shared(jnp.int32(count)))
        action, _ = agent.act(now, jnp.zeros(N, jnp.int32), jax.random.key(2))
        np.testing.assert_allclose(1 - action.mean(), epsilon / 2, atol=0.015)


def test_an_update_counts():
    agent = make("q_learning", EnvSpec(num_states=5, num_actions=3))
    state = agent.init(jax.random.key(0))
    for _ in range(2):
        state, _ = agent.update(state, numbered_trajectory(0, 4, 1), jax.random.key(0))
    assert int(state.num_updates.value) == 2


def test_soft_policies():
    q = np.array([[0.0, 3.0, 3.0, -1.0], [1.0, 2.0, 3.0, 4.0]])
    expected = [soft(row, 0.2) for row in q]
    np.testing.assert_allclose(soft_policy(jnp.asarray(q), 0.2), expected, rtol=1e-6)
    np.testing.assert_allclose(
        soft_value(jnp.asarray(q), 0.2), (expected * q).sum(axis=-1), rtol=1e-6
    )
    np.testing.assert_allclose(soft_value(jnp.array([-4.0, 2.0]), 0.1), 1.7, rtol=1e-6)  # K14f


@pytest.mark.parametrize("name", TABULAR)
def test_the_table_begins_with_one_value(name):
    spec = EnvSpec(num_states=5, num_actions=3)
    params = make(name, spec, initial_value=0.25).init(jax.random.key(0)).params
    assert (params.q.shape == (5, 3)) if name in CONTROL else (params.v.shape == (5,))
    for leaf in jax.tree.leaves(params):
        assert (np.asarray(leaf) == 0.25).all()


@pytest.mark.parametrize("name", TABULAR)
def test_it_needs_a_row_a_state(name):
    for spec in (EnvSpec((4,), 2), EnvSpec((), 0, num_states=3), EnvSpec((2,), 2, num_states=3)):
        with pytest.raises(ValueError, match="a table needs a row a state"):
            make(name, spec)


@pytest.mark.parametrize("name", TABULAR)
def test_workers_learn_one_table(name):
    """Each moves by the mean of what all of them learned by themselves."""
    row, workers = AGENTS[name], 3
    spec = EnvSpec(num_states=5, num_actions=3)
    options = {"planning_steps": 3} if "planning_steps" in field_types(row.config) else {}
    config = row.config(**options)
    trajectories = [numbered_trajectory(i, 20, 1) for i in range(workers)]
    key = jax.random.key(0)
    alone = row.make(config, spec)
    start = alone.init(key)
    ends = [alone.update(start, x, key)[0].params for x in trajectories]
    together = row.make(config, spec, average=partial(jax.lax.pmean, axis_name="workers"))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *trajectories)
    update = jax.vmap(together.update, (None, 0, None), axis_name="workers")
    state, _ = update(start, stacked, key)
    for got, *own in zip(*map(jax.tree.leaves, (state.params, *ends)), strict=True):
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
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        AGENTS[name].config(**options)
