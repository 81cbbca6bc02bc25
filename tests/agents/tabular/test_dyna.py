"""What agents with a model remember, draw and plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from textbook import A, S, numbered_trajectory

from rljax.agents import AGENTS
from rljax.types import EnvSpec, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

SPEC = EnvSpec(num_states=S, num_actions=A)


def make(name, spec=SPEC, **options):
    row = AGENTS[name]
    return row.make(row.config(gamma=0.9, **options), spec)


def steps(*rows):
    """`(s, a, r, s', terminated)` rows as a trajectory of one environment."""
    obs, action, reward, next_obs, terminated = map(jnp.asarray, zip(*rows, strict=True))
    no = jnp.zeros(len(rows), bool)
    x = Transition(obs, action, reward.astype(jnp.float32), terminated, no, next_obs)
    return jax.tree.map(lambda x: x[:, None], x)


def test_corrections_of_one_pair():  # K14g
    """Terminal, and so without what its next state is worth."""
    agent = make("dyna_q", planning_steps=2, learning_rate=0.1)
    state = agent.init(jax.random.key(0))
    state = state._replace(params=state.params._replace(q=state.params.q.at[1].set(7.0)))
    values = []
    for planning in (0, 1, 2):
        agent = make("dyna_q", planning_steps=planning, learning_rate=0.1)
        end, _ = agent.update(state, steps((0, 0, 1.0, 1, True)), jax.random.key(planning))
        values.append(end.params.q[0, 0])
        assert (np.delete(end.params.q, 0, axis=0) == np.delete(state.params.q, 0, axis=0)).all()
    np.testing.assert_allclose(values, [0.1, 0.19, 0.271], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dyna_q", {"sampling": "pairs"}, {(0, 0): 1 / 3, (0, 1): 1 / 3, (1, 0): 1 / 3}),
        ("dyna_q", {"sampling": "states"}, {(0, 0): 1 / 4, (0, 1): 1 / 4, (1, 0): 1 / 2}),
        ("dyna_q_plus", {"bonus": 0.0}, {(s, a): 1 / 4 for s in (0, 1) for a in (0, 1)}),
    ],
)
def test_what_is_planned_with(name, options, expected):  # K14h
    """How often each pair is corrected, which a tiny learning rate makes a sum."""
    spec, rate, n = EnvSpec(num_states=4, num_actions=2), 2.0**-20, 6000
    seen = steps((0, 0, 1.0, 1, False), (1, 0, 1.0, 0, False), (0, 1, 1.0, 1, False))
    learn = make(name, spec, planning_steps=0, learning_rate=rate, **options)
    state, _ = learn.update(learn.init(jax.random.key(0)), seen, jax.random.key(0))
    # an action never tried gives nothing and leads to where it was taken: make it count as well
    model, visited = state.model
    model = model._replace(reward=jnp.ones_like(model.reward))
    state = state._replace(model=(model, visited))
    plan = make(name, spec, planning_steps=n, learning_rate=rate, **options)
    again = steps((0, 0, 1.0, 1, False))
    end, _ = jax.jit(plan.update)(state, again, jax.random.key(3))
    counts = np.asarray((end.params.q - state.params.q) / rate).copy()
    counts[0, 0] -= 1  # the real step
    frequency = counts / n
    for place, chance in expected.items():
        np.testing.assert_allclose(frequency[place], chance, atol=0.025)
    np.testing.assert_allclose(frequency.sum(), 1, atol=0.02)


def test_the_model_is_what_was_last_seen():
    trajectory = numbered_trajectory(1, 20, 1)
    x = [np.asarray(leaf)[:, 0] for leaf in trajectory[:6]]
    last = {}
    for s, a, r, terminated, _, next_s in zip(*x, strict=True):
        last[s, a] = r, next_s, terminated
    for name in ("dyna_q", "dyna_q_plus", "prioritized_sweeping"):
        agent = make(name)
        state, _ = jax.jit(agent.update)(
            agent.init(jax.random.key(0)), trajectory, jax.random.key(0)
        )
        model = state.model[0]
        for place, seen in last.items():
            kept = model.reward[place], model.next_obs[place], model.terminated[place]
            assert kept == seen
        if name != "dyna_q_plus":  # which plans with untried actions too
            assert {tuple(x) for x in np.argwhere(model.known).tolist()} == set(last)
    assert 5 < len(last) < S * A


def test_the_bonus_is_by_the_root_of_the_age():
    """Of one state: an action tried first, one tried last, one never; steps end at once."""
    spec = EnvSpec(num_states=1, num_actions=3)
    rows = [(0, 0, 1.0, 0, True), (0, 1, 1.0, 0, True), (0, 1, 1.0, 0, True)]
    learn = make("dyna_q_plus", spec, planning_steps=0, bonus=0.5, learning_rate=1.0)
    state, _ = learn.update(learn.init(jax.random.key(0)), steps(*rows), jax.random.key(0))
    plan = make("dyna_q_plus", spec, planning_steps=300, bonus=0.5, learning_rate=1.0)
    end, _ = jax.jit(plan.update)(state, steps(rows[1]), jax.random.key(1))
    q = end.params.q[0]
    np.testing.assert_allclose(q[0], 1 + 0.5 * np.sqrt(3), rtol=1e-5)  # at time 4, tried at 1
    np.testing.assert_allclose(q[1], 1.0, rtol=1e-5)  # tried just now
    # never tried: it leads back to where it was taken, without a reward
    np.testing.assert_allclose(q[2], 0.5 * np.sqrt(4) + 0.9 * max(q), rtol=1e-5)


def sweeping(q, trajectory, planning_steps, threshold, rate):
    """Section 8.4 with a plain dictionary for a queue; `-> q, corrections`."""
    q, model, queue, count = q.copy(), {}, {}, 0

    def error(s, a):
        r, next_s, terminated = model[s, a]
        return r + (0.0 if terminated else 0.9 * q[next_s].max()) - q[s, a]

    x = [np.asarray(leaf)[:, 0] for leaf in trajectory[:6]]
    for s, a, r, terminated, _, next_s in zip(*x, strict=True):
        model[s, a] = r, next_s, terminated
        queue[s, a] = abs(error(s, a))
        for _ in range(planning_steps):
            first = max(queue, key=queue.get)
            if queue[first] <= threshold:
                break
            q[first] += rate * error(*first)
            count += 1
            queue[first] = 0.0
            for before, (_, leads_to, ended) in model.items():
                if leads_to == first[0] and not ended:
                    queue[before] = abs(error(*before))
    return q, count


@pytest.mark.parametrize(("planning_steps", "threshold"), [(1, 1e-4), (4, 1e-4), (20, 0.3)])
def test_prioritized_sweeping(planning_steps, threshold):
    trajectory = numbered_trajectory(2, 60, 1)
    options = {"planning_steps": planning_steps, "priority_threshold": threshold}
    agent = make("prioritized_sweeping", learning_rate=0.7, **options)
    state = agent.init(jax.random.key(0))
    q = jax.random.normal(jax.random.key(1), (S, A))
    state = state._replace(params=state.params._replace(q=q))
    end, _ = jax.jit(agent.update)(state, trajectory, jax.random.key(0))
    expected, count = sweeping(np.float64(q), trajectory, planning_steps, threshold, 0.7)
    np.testing.assert_allclose(end.params.q, expected, rtol=1e-4, atol=1e-4)
    assert int(end.model[1].num_backups) == count
    assert (count < 20 * 60) == (threshold > 0.1) or planning_steps < 20
