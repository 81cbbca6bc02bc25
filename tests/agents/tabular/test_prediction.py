"""Prediction against the oracles of `textbook`, which use the forward view."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import textbook
from probes import bits
from textbook import ALPHA, GAMMA, LAMBDA, A, S, random_trajectory

from rljax.agents import AGENTS
from rljax.config import field_types
from rljax.types import EnvSpec, sample_one

pytestmark = pytest.mark.usefixtures("quick_compiles")

SPEC = EnvSpec(num_states=S, num_actions=A)
OPTIONS = {"learning_rate": ALPHA, "gamma": GAMMA, "trace_lambda": LAMBDA}


def make(name, spec=SPEC, policy=None, **options):
    row = AGENTS[name]
    options = {k: v for k, v in (OPTIONS | options).items() if k in field_types(row.config)}
    return row.make(row.config(**options), spec, policy=policy)


def updated(name, trajectory, **options):
    """Returns the values before and after an update."""
    agent = make(name, **options)
    state = agent.init(jax.random.key(0))
    v = jax.random.normal(jax.random.key(1), (S,))
    state = state._replace(params=state.params._replace(v=v))
    new_state, _ = jax.jit(agent.update)(state, trajectory, jax.random.key(0))
    return np.float64(v), new_state.params.v


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("name", "options", "oracle"),
    [
        ("td", {}, lambda v, x: textbook.n_step_td(v, x, 1)),
        ("n_step_td", {"n_step": 2}, lambda v, x: textbook.n_step_td(v, x, 2)),
        ("n_step_td", {"n_step": 5}, lambda v, x: textbook.n_step_td(v, x, 5)),
        ("n_step_td", {"n_step": 99}, lambda v, x: textbook.n_step_td(v, x, 99)),
        *[
            ("td_lambda", {"trace": kind}, lambda v, x, kind=kind: textbook.td_lambda(v, x, kind))
            for kind in ("accumulating", "replacing", "dutch")
        ],
        ("true_online_td_lambda", {}, textbook.online_lambda_return),
        ("lambda_return", {}, textbook.lambda_return),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_values_equal_the_oracle(name, options, oracle, seed):
    trajectory = random_trajectory(seed, 60, 1)
    old, new = updated(name, trajectory, **options)
    expected = oracle(old, trajectory)
    np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - old).max() > 0.1


@pytest.mark.parametrize(
    ("name", "options"),
    [("n_step_td", {"n_step": 1}), ("true_online_td_lambda", {"trace_lambda": 0.0}),
     *[("td_lambda", {"trace_lambda": 0.0, "trace": kind})
       for kind in ("accumulating", "replacing", "dutch")]],
)  # fmt: skip
def test_td_0_is_a_special_case_bit_for_bit(name, options):
    trajectory = random_trajectory(8, 200, 1)
    assert bits(updated(name, trajectory, **options)) == bits(updated("td", trajectory))


def test_lambda_1_is_monte_carlo():
    """Monte Carlo is n-step TD with n larger than the length of any episode."""
    trajectory = random_trajectory(9, 200, 1)
    _, monte_carlo = updated("n_step_td", trajectory, n_step=200)
    _, new = updated("lambda_return", trajectory, trace_lambda=1.0)
    # truncated returns bootstrap from the same table in both
    np.testing.assert_allclose(new, monte_carlo, rtol=1e-5, atol=1e-5)


def test_actions_follow_the_policy():
    n = 20_000
    policy = np.tile([0.5, 0.2, 0.3], (S, 1))
    policy[2] = [0.0, 1.0, 0.0]
    agent = make("td", SPEC._replace(num_envs=n), policy)
    state = agent.init(jax.random.key(0))
    noise = sample_one(agent.sample_noise, jax.random.key(2))
    for s, expected in ((0, policy[0]), (2, policy[2])):
        obs = jnp.full(n, s, jnp.int32)
        for action in (
            agent.greedy(state, obs, jax.random.key(1)),
            agent.act(state, obs, noise)[0],
        ):
            assert action.dtype == jnp.int32
            np.testing.assert_allclose(np.bincount(action, minlength=A) / n, expected, atol=0.015)
    action, _ = make("td", SPEC._replace(num_envs=n)).act(state, obs, noise)
    np.testing.assert_allclose(np.bincount(action) / n, 1 / A, atol=0.015)


@pytest.mark.parametrize(
    ("policy", "message"),
    [(np.full((S, A + 1), 0.25), r"`policy` has shape \(5, 4\), but Env needs \(5, 3\)"),
     (np.full((S, A), 0.5), r"`policy` is \[0.5, 0.5, 0.5\] in state 0"),
     (np.tile([1.5, -0.5, 0.0], (S, 1)), "must be a probability distribution")],
)  # fmt: skip
def test_invalid_policies_are_rejected(policy, message):
    with pytest.raises(ValueError, match=message):
        make("td", SPEC, policy)
