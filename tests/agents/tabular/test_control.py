"""Tabular control against the oracles of `textbook`, and against hand-computed values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import textbook
from probes import bits
from textbook import ALPHA, EPSILON, GAMMA, LAMBDA, A, S, random_trajectory, trajectory_of

from rljax.agents import AGENTS
from rljax.agents.tabular import traces
from rljax.config import field_types
from rljax.envs import build
from rljax.training.learner import make_learner
from rljax.types import EnvSpec, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

SPEC = EnvSpec(num_states=S, num_actions=A)
OPTIONS = {
    "learning_rate": ALPHA, "gamma": GAMMA, "eps_start": EPSILON, "eps_end": EPSILON,
    "trace_lambda": LAMBDA, "total_timesteps": 10**6, "planning_steps": 0,
}  # fmt: skip
CONTROL = [name for name, row in AGENTS.items() if row.tabular and hasattr(row.config, "eps_start")]
TRACES = ("accumulating", "replacing", "clearing", "dutch")


def make(name, spec=SPEC, **options):
    row = AGENTS[name]
    options = {k: v for k, v in (OPTIONS | options).items() if k in field_types(row.config)}
    return row.make(row.config(**options), spec)


def random_state(agent, seed=0):
    """Returns an initial state with random tables, so that values are not equal by coincidence."""
    state = agent.init(jax.random.key(seed))

    def random(x):
        return jax.random.normal(jax.random.key(seed), x.shape)

    return state._replace(params=jax.tree.map(random, state.params))


def updated(name, trajectory, **options):
    """Returns the table before and after an update."""
    agent = make(name, **options)
    state = random_state(agent)
    new_state, _ = jax.jit(agent.update)(state, trajectory, jax.random.key(0))
    return np.float64(state.params.q), new_state.params.q


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("name", "options", "oracle"),
    [
        ("q_learning", {}, lambda q, x: textbook.one_step(q, x, np.max)),
        ("dyna_q", {}, lambda q, x: textbook.one_step(q, x, np.max)),
        ("expected_sarsa", {}, lambda q, x: textbook.one_step(q, x, textbook.expectation)),
        ("sarsa", {}, lambda q, x: textbook.n_step_sarsa(q, x, 1)),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_one_step(name, options, oracle, seed):
    trajectory = random_trajectory(seed, 60, 1)
    old, new = updated(name, trajectory, **options)
    np.testing.assert_allclose(new, oracle(old, trajectory), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_n_step_sarsa(n):
    """The last n exceeds the length of any episode: Monte Carlo."""
    trajectory = random_trajectory(3, 60, 1)
    old, new = updated("n_step_sarsa", trajectory, n_step=n)
    expected = textbook.n_step_sarsa(old, trajectory, n)
    np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("policy", ["greedy", "epsilon_greedy"])
def test_tree_backup(n, policy):
    trajectory = random_trajectory(4, 60, 1)
    old, new = updated("tree_backup", trajectory, n_step=n, target_policy=policy)
    epsilon = EPSILON if policy == "epsilon_greedy" else 0.0
    expected = textbook.tree_backup(old, trajectory, n, epsilon)
    np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", TRACES)
@pytest.mark.parametrize("name", ["sarsa_lambda", "q_lambda"])
def test_traces(name, kind):
    trajectory = random_trajectory(5, 60, 1)
    old, new = updated(name, trajectory, trace=kind)
    expected = getattr(textbook, name)(old, trajectory, kind)
    np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-5)


def test_double_q_learning_bootstraps_from_the_other_table():
    agent, key = make("double_q_learning"), jax.random.key(4)
    trajectory = random_trajectory(6, 60, 1)
    state = random_state(agent)
    new_state, _ = jax.jit(agent.update)(state, trajectory, key)
    uniform = np.asarray(jax.random.uniform(key, (60, 1, 1 + A)))[:, 0, 0]
    tables = np.float64(state.params.tables)
    x = [np.asarray(leaf)[:, 0] for leaf in trajectory[:6]]
    for s, a, r, terminated, _, next_s, u in zip(*x, uniform, strict=True):
        q1, q2 = (tables[1], tables[0]) if u < 0.5 else tables
        next_q = 0.0 if terminated else q2[next_s, q1[next_s].argmax()]
        q1[s, a] += ALPHA * (r + GAMMA * next_q - q1[s, a])
    np.testing.assert_allclose(new_state.params.tables, tables, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(new_state.params.q, tables.mean(axis=0), rtol=1e-5, atol=1e-5)
    assert 10 < (uniform < 0.5).sum() < 50


@pytest.mark.parametrize(
    ("name", "expected"), [("q_learning", 1.08), ("sarsa", 0.54), ("expected_sarsa", 1.053)]
)
def test_one_step_by_hand(name, expected):
    """Q(s1, a2) = 1 and Q(s2, .) = (-4, 2), reward 0; Sarsa selects a1 in s2."""
    options = {"learning_rate": 0.1, "eps_start": 0.1, "eps_end": 0.1}
    agent = make(name, EnvSpec(num_states=2, num_actions=2), **options)
    state = agent.init(jax.random.key(0))
    state = state._replace(params=state.params._replace(q=jnp.array([[0.0, 1.0], [-4.0, 2.0]])))
    trajectory = trajectory_of([(0, 1, 0.0, 1, False), (1, 0, 0.0, 1, False)])
    state, _ = agent.update(state, trajectory, jax.random.key(0))
    np.testing.assert_allclose(state.params.q[0, 1], expected, rtol=1e-6)


CHAIN = [(0, 0, 0.0, 1, False), (1, 0, 0.0, 2, False), (2, 0, 1.0, 2, True)]


@pytest.mark.parametrize(
    ("n", "times", "expected"),
    [(1, 1, (0, 0, 0.5)), (2, 1, (0, 0.45, 0.5)), (3, 1, (0.405, 0.45, 0.5)),
     (9, 1, (0.405, 0.45, 0.5)), (2, 2, (0.2025, 0.675, 0.75))],
)  # fmt: skip
def test_n_step_sarsa_by_hand(n, times, expected):
    agent = make("n_step_sarsa", EnvSpec(num_states=3, num_actions=1), n_step=n, learning_rate=0.5)
    state, trajectory = agent.init(jax.random.key(0)), trajectory_of(CHAIN)
    for _ in range(times):
        state, _ = agent.update(state, trajectory, jax.random.key(0))
    np.testing.assert_allclose(state.params.q[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["sarsa_lambda", "q_lambda"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [("accumulating", 0.16561), ("replacing", 0.1), ("clearing", 0.1), ("dutch", 0.159049)],
)
def test_traces_by_hand(name, kind, expected):
    """An episode that visits state 0, state 1 and state 0 again."""
    spec = EnvSpec(num_states=2, num_actions=1)
    agent = make(name, spec, learning_rate=0.1, trace_lambda=0.9, trace=kind)
    rows = [(0, 0, 0.0, 1, False), (1, 0, 0.0, 0, False), (0, 0, 1.0, 0, True)]
    state, _ = agent.update(agent.init(jax.random.key(0)), trajectory_of(rows), jax.random.key(0))
    np.testing.assert_allclose(state.params.q[:, 0], [expected, 0.081], rtol=1e-6)


def test_clearing_traces_clear_the_other_actions():
    trace = jnp.array([[0.5, 0.3], [0.2, 0.1]])
    cleared = traces.updated_trace(trace, (0, 1), "clearing", 0.1)
    np.testing.assert_array_equal(cleared, jnp.array([[0.0, 1.0], [0.2, 0.1]]))
    replaced = traces.updated_trace(trace, (0, 1), "replacing", 0.1)
    np.testing.assert_array_equal(replaced, jnp.array([[0.5, 1.0], [0.2, 0.1]]))


@pytest.mark.parametrize("name", CONTROL)
def test_one_update_equals_updates_step_by_step(name):
    """And several environments equal one environment after another: bit for bit."""
    T, B = 12, 2
    trajectory = random_trajectory(7, T, B)
    batched = make(name, SPEC._replace(num_envs=B))
    expected = jax.jit(batched.update)(random_state(batched), trajectory, jax.random.key(0))[0]
    single = make(name)
    state, update = random_state(single), jax.jit(single.update)
    episodes = [state.episode] * B
    for t in range(T):
        for b in range(B):
            step = jax.tree.map(lambda x: x[t : t + 1, b : b + 1], trajectory)
            state, _ = update(state._replace(episode=episodes[b]), step, jax.random.key(0))
            episodes[b] = state.episode
    # double Q-learning draws noise per update; prioritized sweeping plans
    if name not in ("double_q_learning", "prioritized_sweeping"):
        assert bits(state.params) == bits(expected.params)
    stacked = jax.tree.map(lambda *x: jnp.concatenate(x), *episodes)
    assert bits(stacked) == bits(expected.episode)


def test_only_truncated_steps_bootstrap():
    for name in CONTROL:
        if name == "prioritized_sweeping":
            continue  # see test_dyna
        agent = make(name, gamma=0.9, learning_rate=0.5, eps_start=0.0, eps_end=0.0)
        state = agent.init(jax.random.key(0))
        state = state._replace(
            params=jax.tree.map(lambda x: x.at[..., 1, :].set(10.0), state.params)
        )
        row = trajectory_of([(0, 0, 1.0, 1, False)])
        for terminated, expected in ((False, 5.0), (True, 0.5)):
            flag = jnp.full((1, 1), terminated)
            step = row._replace(terminated=flag, truncated=~flag)
            new_state, _ = agent.update(state, step, jax.random.key(0))
            factor = 0.5 if name == "double_q_learning" else 1.0  # one of two tables is updated
            np.testing.assert_allclose(
                new_state.params.q[0, 0], factor * expected, rtol=1e-6, err_msg=name
            )


def run(name, steps=400, env_id="rljax/MazeDQN", **options):
    """Returns the trajectory `[steps, 1]` and the final state of a run with one step per update."""
    env = build(env_id, 1, **({"features": False} if env_id == "rljax/MazeDQN" else {}))
    agent = make(name, env.spec, eps_start=0.4, eps_end=0.4, **options)

    def update(state, trajectory, key):
        state, metrics = agent.update(state, trajectory, key)
        return state, metrics | {"step": jax.tree.map(lambda x: x[0, 0], trajectory[:6])}

    learner = make_learner(agent._replace(update=update), env, 1)

    @jax.jit
    def train(key):
        def body(state, _):
            state, metrics = learner.step(state)
            return state, metrics["step"]

        return jax.lax.scan(body, learner.init(key), length=steps)

    state, transitions = train(jax.random.key(1))
    return Transition(*(x[:, None] for x in transitions)), state.agent


@pytest.mark.parametrize("options", [{}, {"n_step": 3}])
def test_sarsa_bootstraps_from_the_action_it_takes(options):
    """The table equals that of the oracle on the trajectory of the run."""
    name = "n_step_sarsa" if options else "sarsa"
    trajectory, state = run(name, **options)
    table = np.zeros(state.params.q.shape)
    expected = textbook.n_step_sarsa(table, trajectory, options.get("n_step", 1))
    np.testing.assert_allclose(state.params.q, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize(
    ("name", "options", "special_case"),
    [("n_step_sarsa", {"n_step": 1}, "sarsa"),
     *[("sarsa_lambda", {"trace_lambda": 0.0, "trace": kind}, "sarsa") for kind in TRACES],
     ("q_lambda", {"trace_lambda": 0.0}, "q_learning"),
     ("tree_backup", {"n_step": 1, "target_policy": "epsilon_greedy"}, "expected_sarsa"),
     ("tree_backup", {"n_step": 1}, "q_learning"), ("dyna_q", {"planning_steps": 0}, "q_learning")],
)  # fmt: skip
def test_special_cases_are_equal_bit_for_bit(name, options, special_case):
    trajectory, state = run(name, **options)
    expected_trajectory, expected_state = run(special_case)
    assert bits(trajectory) == bits(expected_trajectory)
    assert bits(state.params) == bits(expected_state.params)
    assert np.abs(state.params.q).max() > 0.1


def test_td_error_counts_only_the_updates_that_were_due():
    agent = make("n_step_sarsa", EnvSpec(num_states=3, num_actions=1), n_step=2)
    state, trajectory = agent.init(jax.random.key(0)), trajectory_of(CHAIN)
    head, tail = (jax.tree.map(lambda x, r=r: x[r], trajectory) for r in (slice(2), slice(2, 3)))
    state, metrics = agent.update(state, head, jax.random.key(0))
    np.testing.assert_array_equal(metrics["losses/td_error"], (0.0, 0.0))  # no update was due
    _, metrics = agent.update(state, tail, jax.random.key(0))
    np.testing.assert_allclose(metrics["losses/td_error"], (1.9, 3.0), rtol=1e-6)
