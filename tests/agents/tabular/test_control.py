"""The tabular algorithms of control against the textbook's, written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import textbook
from probes import bits
from textbook import ALPHA, EPSILON, GAMMA, LAMBDA, A, S, numbered_trajectory

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


def at_first(agent, seed=0):
    """A state whose table is random, so that nothing is equal by chance."""
    state = agent.init(jax.random.key(seed))

    def random(x):
        return jax.random.normal(jax.random.key(seed), x.shape)

    return state._replace(params=jax.tree.map(random, state.params))


def learned(name, trajectory, **options):
    """The table before and after."""
    agent = make(name, **options)
    state = at_first(agent)
    end, _ = jax.jit(agent.update)(state, trajectory, jax.random.key(0))
    return np.float64(state.params.q), end.params.q


def scripted(rows, spec_states=3):
    """`(s, a, r, s', terminated)` rows as a trajectory of one environment."""
    obs, action, reward, next_obs, terminated = map(jnp.asarray, zip(*rows, strict=True))
    no = jnp.zeros(len(rows), bool)
    x = Transition(obs, action, reward.astype(jnp.float32), terminated, no, next_obs)
    return jax.tree.map(lambda x: x[:, None], x)


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
    trajectory = numbered_trajectory(seed, 60, 1)
    begin, end = learned(name, trajectory, **options)
    np.testing.assert_allclose(end, oracle(begin, trajectory), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_n_step_sarsa(n):
    """The last is longer than any episode: Monte Carlo."""
    trajectory = numbered_trajectory(3, 60, 1)
    begin, end = learned("n_step_sarsa", trajectory, n_step=n)
    expected = textbook.n_step_sarsa(begin, trajectory, n)
    np.testing.assert_allclose(end, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("policy", ["greedy", "epsilon_greedy"])
def test_tree_backup(n, policy):
    trajectory = numbered_trajectory(4, 60, 1)
    begin, end = learned("tree_backup", trajectory, n_step=n, target_policy=policy)
    epsilon = EPSILON if policy == "epsilon_greedy" else 0.0
    expected = textbook.tree_backup(begin, trajectory, n, epsilon)
    np.testing.assert_allclose(end, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", TRACES)
@pytest.mark.parametrize("name", ["sarsa_lambda", "q_lambda"])
def test_traces(name, kind):
    trajectory = numbered_trajectory(5, 60, 1)
    begin, end = learned(name, trajectory, trace=kind)
    expected = getattr(textbook, name)(begin, trajectory, kind)
    np.testing.assert_allclose(end, expected, rtol=1e-5, atol=1e-5)


def test_double_q_learning_asks_the_other_table():
    agent, trajectory, key = (
        make("double_q_learning"),
        numbered_trajectory(6, 60, 1),
        jax.random.key(4),
    )
    state = at_first(agent)
    end, _ = jax.jit(agent.update)(state, trajectory, key)
    tosses = np.asarray(jax.random.uniform(key, (60, 1, 1 + A)))[:, 0, 0]
    tables = np.float64(state.params.tables)
    x = [np.asarray(leaf)[:, 0] for leaf in trajectory[:6]]
    for s, a, r, terminated, _, next_s, toss in zip(*x, tosses, strict=True):
        one, other = (tables[1], tables[0]) if toss < 0.5 else tables
        beyond = 0.0 if terminated else other[next_s, one[next_s].argmax()]
        one[s, a] += ALPHA * (r + GAMMA * beyond - one[s, a])
    np.testing.assert_allclose(end.params.tables, tables, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(end.params.q, tables.mean(axis=0), rtol=1e-5, atol=1e-5)
    assert 10 < (tosses < 0.5).sum() < 50


@pytest.mark.parametrize(
    ("name", "expected"), [("q_learning", 1.08), ("sarsa", 0.54), ("expected_sarsa", 1.053)]
)
def test_the_example_of_the_notes(name, expected):
    """Q(s1, a2) = 1 and (-4, 2) in s2, reward 0; Sarsa takes a1 next (TARGETS 1.1, row 2)."""
    options = {"learning_rate": 0.1, "eps_start": 0.1, "eps_end": 0.1}
    agent = make(name, EnvSpec(num_states=2, num_actions=2), **options)
    state = agent.init(jax.random.key(0))
    state = state._replace(params=state.params._replace(q=jnp.array([[0.0, 1.0], [-4.0, 2.0]])))
    trajectory = scripted([(0, 1, 0.0, 1, False), (1, 0, 0.0, 1, False)])
    end, _ = agent.update(state, trajectory, jax.random.key(0))
    np.testing.assert_allclose(end.params.q[0, 1], expected, rtol=1e-6)


CHAIN = [(0, 0, 0.0, 1, False), (1, 0, 0.0, 2, False), (2, 0, 1.0, 2, True)]


@pytest.mark.parametrize(
    ("n", "times", "expected"),
    [(1, 1, (0, 0, 0.5)), (2, 1, (0, 0.45, 0.5)), (3, 1, (0.405, 0.45, 0.5)),
     (9, 1, (0.405, 0.45, 0.5)), (2, 2, (0.2025, 0.675, 0.75))],
)  # fmt: skip
def test_bookkeeping_of_n_steps(n, times, expected):  # K12
    agent = make("n_step_sarsa", EnvSpec(num_states=3, num_actions=1), n_step=n, learning_rate=0.5)
    state, trajectory = agent.init(jax.random.key(0)), scripted(CHAIN)
    for _ in range(times):
        state, _ = agent.update(state, trajectory, jax.random.key(0))
    np.testing.assert_allclose(state.params.q[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["sarsa_lambda", "q_lambda"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [("accumulating", 0.16561), ("replacing", 0.1), ("clearing", 0.1), ("dutch", 0.159049)],
)
def test_bookkeeping_of_traces(name, kind, expected):  # K13, K14b
    """A, B, A and the end."""
    spec = EnvSpec(num_states=2, num_actions=1)
    agent = make(name, spec, learning_rate=0.1, trace_lambda=0.9, trace=kind)
    rows = [(0, 0, 0.0, 1, False), (1, 0, 0.0, 0, False), (0, 0, 1.0, 0, True)]
    end, _ = agent.update(agent.init(jax.random.key(0)), scripted(rows), jax.random.key(0))
    np.testing.assert_allclose(end.params.q[:, 0], [expected, 0.081], rtol=1e-6)


def test_a_clearing_trace_forgets_the_sibling():  # K14c
    trace = jnp.array([[0.5, 0.3], [0.2, 0.1]])
    cleared = traces.marked(trace, (0, 1), "clearing", 0.1)
    np.testing.assert_array_equal(cleared, jnp.array([[0.0, 1.0], [0.2, 0.1]]))
    replaced = traces.marked(trace, (0, 1), "replacing", 0.1)
    np.testing.assert_array_equal(replaced, jnp.array([[0.5, 1.0], [0.2, 0.1]]))


@pytest.mark.parametrize("name", CONTROL)
def test_steps_one_by_one_are_steps_at_once(name):
    """And environments side by side are environments one after another: bit for bit."""
    T, B = 12, 2
    trajectory = numbered_trajectory(7, T, B)
    many = make(name, SPEC._replace(num_envs=B))
    at_once = jax.jit(many.update)(at_first(many), trajectory, jax.random.key(0))[0]
    alone = make(name)
    state, update = at_first(alone), jax.jit(alone.update)
    own = [state.episode] * B
    for t in range(T):
        for b in range(B):
            step = jax.tree.map(lambda x: x[t : t + 1, b : b + 1], trajectory)
            state, _ = update(state._replace(episode=own[b]), step, jax.random.key(0))
            own[b] = state.episode
    noisy = name in ("double_q_learning", "prioritized_sweeping")  # a toss a step; it plans
    if not noisy:
        assert bits(state.params) == bits(at_once.params)
    together = jax.tree.map(lambda *x: jnp.concatenate(x), *own)
    assert bits(together) == bits(at_once.episode)


def test_a_truncated_step_bootstraps_and_a_terminated_one_does_not():
    for name in CONTROL:
        if name == "prioritized_sweeping":
            continue  # see test_planning
        agent = make(name, gamma=0.9, learning_rate=0.5, eps_start=0.0, eps_end=0.0)
        state = agent.init(jax.random.key(0))
        state = state._replace(
            params=jax.tree.map(lambda x: x.at[..., 1, :].set(10.0), state.params)
        )
        row = scripted([(0, 0, 1.0, 1, False)])
        for terminated, expected in ((False, 5.0), (True, 0.5)):
            flag = jnp.full((1, 1), terminated)
            step = row._replace(terminated=flag, truncated=~flag)
            end, _ = agent.update(state, step, jax.random.key(0))
            half = 0.5 if name == "double_q_learning" else 1.0  # one of two tables
            np.testing.assert_allclose(end.params.q[0, 0], half * expected, rtol=1e-6, err_msg=name)


def play(name, steps=400, env_id="rljax/MazeDQN", **options):
    """What an agent lives through when it learns at every step, and its last table."""
    env = build(env_id, 1, **({"features": False} if env_id == "rljax/MazeDQN" else {}))
    agent = make(name, env.spec, eps_start=0.4, eps_end=0.4, **options)
    kept = []

    def update(state, trajectory, key):
        state, metrics = agent.update(state, trajectory, key)
        return state, metrics | {"kept": jax.tree.map(lambda x: x[0, 0], trajectory[:6])}

    learner = make_learner(agent._replace(update=update), env, 1)

    @jax.jit
    def run(key):
        def body(state, _):
            state, metrics = learner.step(state)
            return state, metrics["kept"]

        return jax.lax.scan(body, learner.init(key), length=steps)

    end, kept = run(jax.random.key(1))
    return Transition(*(x[:, None] for x in kept)), end.agent


@pytest.mark.parametrize("options", [{}, {"n_step": 3}])
def test_sarsa_learns_of_the_action_that_it_takes(options):
    """The textbook's table, made from the steps that were really taken."""
    name = "n_step_sarsa" if options else "sarsa"
    lived, end = play(name, **options)
    table = np.zeros(end.params.q.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textbook, "EPSILON", 0.4)
        expected = textbook.n_step_sarsa(table, lived, options.get("n_step", 1))
    np.testing.assert_allclose(end.params.q, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize(
    ("name", "options", "plain"),
    [("n_step_sarsa", {"n_step": 1}, "sarsa"),
     *[("sarsa_lambda", {"trace_lambda": 0.0, "trace": kind}, "sarsa") for kind in TRACES],
     ("q_lambda", {"trace_lambda": 0.0}, "q_learning"),
     ("tree_backup", {"n_step": 1, "target_policy": "epsilon_greedy"}, "expected_sarsa"),
     ("tree_backup", {"n_step": 1}, "q_learning"), ("dyna_q", {"planning_steps": 0}, "q_learning")],
)  # fmt: skip
def test_the_one_step_algorithm_is_inside_bit_for_bit(name, options, plain):
    lived, end = play(name, **options)
    lived_plain, end_plain = play(plain)
    assert bits(lived) == bits(lived_plain)
    assert bits(end.params) == bits(end_plain.params)
    assert np.abs(end.params.q).max() > 0.1


def test_metrics_are_of_the_corrections_that_were_made():
    agent = make("n_step_sarsa", EnvSpec(num_states=3, num_actions=1), n_step=2)
    state, trajectory = agent.init(jax.random.key(0)), scripted(CHAIN)
    head, tail = (jax.tree.map(lambda x, r=r: x[r], trajectory) for r in (slice(2), slice(2, 3)))
    state, metrics = agent.update(state, head, jax.random.key(0))
    np.testing.assert_array_equal(metrics["losses/td_error"], (0.0, 0.0))  # nothing was due yet
    _, metrics = agent.update(state, tail, jax.random.key(0))
    np.testing.assert_allclose(metrics["losses/td_error"], (1.9, 3.0), rtol=1e-6)
