"""The learned model, sampling and planning of Dyna-Q, Dyna-Q+ and prioritized sweeping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from textbook import A, S, random_trajectory, trajectory_of

from rljax.agents import AGENTS
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

SPEC = EnvSpec(num_states=S, num_actions=A)


def make(name, spec=SPEC, **options):
    row = AGENTS[name]
    return row.make(row.config(gamma=0.9, **options), spec)


def test_planning_updates_of_one_pair():
    """The pair is terminal, so the value 7 of its next state does not count."""
    agent = make("dyna_q", planning_steps=2, learning_rate=0.1)
    state = agent.init(jax.random.key(0))
    state = state._replace(params=state.params._replace(q=state.params.q.at[1].set(7.0)))
    values = []
    for n in (0, 1, 2):
        agent = make("dyna_q", planning_steps=n, learning_rate=0.1)
        step = trajectory_of([(0, 0, 1.0, 1, True)])
        new_state, _ = agent.update(state, step, jax.random.key(n))
        q = new_state.params.q
        values.append(q[0, 0])
        assert (np.delete(q, 0, axis=0) == np.delete(state.params.q, 0, axis=0)).all()
    np.testing.assert_allclose(values, [0.1, 0.19, 0.271], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dyna_q", {"sampling": "pairs"}, {(0, 0): 1 / 3, (0, 1): 1 / 3, (1, 0): 1 / 3}),
        ("dyna_q", {"sampling": "states"}, {(0, 0): 1 / 4, (0, 1): 1 / 4, (1, 0): 1 / 2}),
        ("dyna_q_plus", {"bonus": 0.0}, {(s, a): 1 / 4 for s in (0, 1) for a in (0, 1)}),
    ],
)
def test_sampling_frequency_of_planning(name, options, expected):
    """A tiny learning rate makes the change of a value proportional to its number of updates."""
    spec, rate, n = EnvSpec(num_states=4, num_actions=2), 2.0**-20, 6000
    trajectory = trajectory_of(
        [(0, 0, 1.0, 1, False), (1, 0, 1.0, 0, False), (0, 1, 1.0, 1, False)]
    )
    agent = make(name, spec, planning_steps=0, learning_rate=rate, **options)
    state, _ = agent.update(agent.init(jax.random.key(0)), trajectory, jax.random.key(0))
    # the model gives untried actions reward 0: with 1 their updates can be counted as well
    model = state.model._replace(reward=jnp.ones_like(state.model.reward))
    state = state._replace(model=model)
    agent = make(name, spec, planning_steps=n, learning_rate=rate, **options)
    step = trajectory_of([(0, 0, 1.0, 1, False)])
    new_state, _ = jax.jit(agent.update)(state, step, jax.random.key(3))
    counts = np.asarray((new_state.params.q - state.params.q) / rate).copy()
    counts[0, 0] -= 1  # the update from the environment step
    frequency = counts / n
    for index, probability in expected.items():
        np.testing.assert_allclose(frequency[index], probability, atol=0.025)
    np.testing.assert_allclose(frequency.sum(), 1, atol=0.02)


def test_model_holds_the_last_observed_outcome():
    trajectory = random_trajectory(1, 20, 1)
    x = [np.asarray(leaf)[:, 0] for leaf in trajectory[:6]]
    last = {}
    for s, a, r, terminated, _, next_s in zip(*x, strict=True):
        last[s, a] = r, next_s, terminated
    for name in ("dyna_q", "dyna_q_plus", "prioritized_sweeping"):
        agent = make(name)
        state, _ = jax.jit(agent.update)(
            agent.init(jax.random.key(0)), trajectory, jax.random.key(0)
        )
        model = state.model
        for index, outcome in last.items():
            assert (model.reward[index], model.next_obs[index], model.terminated[index]) == outcome
        if name != "dyna_q_plus":  # which also plans with untried actions
            assert {tuple(x) for x in np.argwhere(model.is_known).tolist()} == set(last)
    assert 5 < len(last) < S * A


def test_bonus_grows_with_the_square_root_of_the_time_since_the_last_trial():
    """One state; action 0 was tried first, action 1 last, action 2 never; all steps terminate."""
    spec = EnvSpec(num_states=1, num_actions=3)
    rows = [(0, 0, 1.0, 0, True), (0, 1, 1.0, 0, True), (0, 1, 1.0, 0, True)]
    agent = make("dyna_q_plus", spec, planning_steps=0, bonus=0.5, learning_rate=1.0)
    state = agent.init(jax.random.key(0))
    state, _ = agent.update(state, trajectory_of(rows), jax.random.key(0))
    agent = make("dyna_q_plus", spec, planning_steps=300, bonus=0.5, learning_rate=1.0)
    step = trajectory_of([rows[1]])
    new_state, _ = jax.jit(agent.update)(state, step, jax.random.key(1))
    q = new_state.params.q[0]
    np.testing.assert_allclose(q[0], 1 + 0.5 * np.sqrt(3), rtol=1e-5)  # tried at time 1, now 4
    np.testing.assert_allclose(q[1], 1.0, rtol=1e-5)  # tried at the current step
    # never tried: the model stays in the state, with reward 0
    np.testing.assert_allclose(q[2], 0.5 * np.sqrt(4) + 0.9 * max(q), rtol=1e-5)


def sweeping(q, trajectory, planning_steps, threshold, rate):
    """Prioritized sweeping (section 8.4) with a dictionary as the queue: `-> q, num_backups`."""
    q, model, queue, num_backups = q.copy(), {}, {}, 0

    def td_error(s, a):
        r, next_s, terminated = model[s, a]
        return r + (0.0 if terminated else 0.9 * q[next_s].max()) - q[s, a]

    x = [np.asarray(leaf)[:, 0] for leaf in trajectory[:6]]
    for s, a, r, terminated, _, next_s in zip(*x, strict=True):
        model[s, a] = r, next_s, terminated
        queue[s, a] = abs(td_error(s, a))
        for _ in range(planning_steps):
            first = max(queue, key=queue.get)
            if queue[first] <= threshold:
                break
            q[first] += rate * td_error(*first)
            num_backups += 1
            queue[first] = 0.0
            for predecessor, (_, reached, ended) in model.items():
                if reached == first[0] and not ended:
                    queue[predecessor] = abs(td_error(*predecessor))
    return q, num_backups


@pytest.mark.parametrize(("planning_steps", "threshold"), [(1, 1e-4), (4, 1e-4), (20, 0.3)])
def test_prioritized_sweeping(planning_steps, threshold):
    trajectory = random_trajectory(2, 60, 1)
    options = {"planning_steps": planning_steps, "priority_threshold": threshold}
    agent = make("prioritized_sweeping", learning_rate=0.7, **options)
    state = agent.init(jax.random.key(0))
    q = jax.random.normal(jax.random.key(1), (S, A))
    state = state._replace(params=state.params._replace(q=q))
    new_state, _ = jax.jit(agent.update)(state, trajectory, jax.random.key(0))
    expected, num_backups = sweeping(np.float64(q), trajectory, planning_steps, threshold, 0.7)
    np.testing.assert_allclose(new_state.params.q, expected, rtol=1e-4, atol=1e-4)
    assert int(new_state.planner.num_backups) == num_backups
    assert (num_backups < 20 * 60) == (threshold > 0.1) or planning_steps < 20
