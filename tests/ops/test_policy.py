"""Terms of policy-gradient objectives against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rljax.agents.ppo import PPOConfig
from rljax.ops import policy

# ratio, advantage -> objective, its derivative by the ratio; eps = .2
CLIP_CASES = [
    (1.5, 1.0, 1.2, 0.0),
    (1.5, -1.0, -1.5, -1.0),
    (0.5, 1.0, 0.5, 1.0),
    (0.5, -1.0, -0.8, 0.0),
    (1.1, 2.0, 2.2, 2.0),
    (0.7, -2.0, -1.6, 0.0),
    (1.0, 3.0, 3.0, 3.0),
    (1.0, -3.0, -3.0, -3.0),
]


@pytest.mark.parametrize(("ratio", "advantage", "objective", "slope"), CLIP_CASES)
def test_clipped_surrogate_by_hand(ratio, advantage, objective, slope):
    got, derivative = jax.value_and_grad(policy.clipped_surrogate)(ratio, jnp.array(advantage), 0.2)
    np.testing.assert_allclose(got, objective, rtol=1e-6)
    np.testing.assert_allclose(derivative, slope, rtol=1e-6)


def test_clipped_surrogate_of_a_batch():
    ratio, advantage, objective, _ = (jnp.array(x) for x in zip(*CLIP_CASES, strict=True))
    got = policy.clipped_surrogate(ratio, advantage, 0.2)
    np.testing.assert_allclose(got, objective, rtol=1e-6)
    with pytest.raises(AssertionError):
        policy.clipped_surrogate(ratio, advantage[:, None], 0.2)


@given(st.floats(0.01, 10), st.floats(-5, 5), st.floats(0.05, 0.5))
def test_clipped_surrogate_is_the_minimum_of_both_terms(ratio, advantage, clip_eps):
    got = policy.clipped_surrogate(jnp.float32(ratio), jnp.float32(advantage), clip_eps)
    clipped = np.clip(ratio, 1 - clip_eps, 1 + clip_eps) * advantage
    np.testing.assert_allclose(got, min(ratio * advantage, clipped), rtol=1e-5, atol=1e-5)


# KL, beta after; target .01, beta 1 before
BETA_CASES = [
    (0.0, 0.5), (0.006, 0.5), (0.0066, 0.5), (0.0067, 1.0),
    (0.01, 1.0), (0.015, 1.0), (0.0151, 2.0), (1.0, 2.0),
]  # fmt: skip


@pytest.mark.parametrize(("kl", "expected"), BETA_CASES)
def test_beta_is_adapted_by_the_kl(kl, expected):
    beta = policy.adapted_beta(jnp.float32(1.0), jnp.float32(kl), 0.01)
    np.testing.assert_array_equal(beta, np.float32(expected))


def test_the_target_kl_may_be_traced():
    kl, expected = (jnp.array(x) for x in zip(*BETA_CASES, strict=True))
    beta = jax.vmap(policy.adapted_beta, (None, 0, None))(jnp.float32(1.0), kl, jnp.float32(0.01))
    np.testing.assert_array_equal(beta, expected)


@pytest.mark.parametrize(("kl", "bound", "back"), [(0.0, 1e-4, 1.0), (1.0, 1e4, 0.0)])
def test_beta_stays_within_its_bounds_and_returns_from_them(kl, bound, back):
    beta = jnp.float32(1.0)
    for _ in range(40):
        beta = policy.adapted_beta(beta, jnp.float32(kl), 0.01)
    np.testing.assert_allclose(beta, bound, rtol=1e-6)
    returned = policy.adapted_beta(beta, jnp.float32(back), 0.01)
    np.testing.assert_allclose(returned, bound * (2.0 if back else 0.5), rtol=1e-6)


def test_the_bounds_of_beta_can_be_set():
    beta = policy.adapted_beta(jnp.float32(9.0), jnp.float32(1.0), 0.01, low=0.1, high=10.0)
    np.testing.assert_allclose(beta, 10.0)
    beta = policy.adapted_beta(jnp.float32(0.15), jnp.float32(0.0), 0.01, low=0.1, high=10.0)
    np.testing.assert_allclose(beta, 0.1)


# value, old value, target -> loss, its derivative by the value; eps = .2
VALUE_CASES = [
    (1.1, 1.0, 3.0, 1.805, -1.9),  # changed by less than eps: the plain squared error
    (2.0, 1.0, 3.0, 1.62, 0.0),  # changed too far towards the target: clipped, no gradient
    (2.0, 1.0, 0.0, 2.0, 2.0),  # changed away from the target: the larger error, full gradient
    (0.0, 1.0, -3.0, 7.22, 0.0),  # the same in the other direction
    (0.0, 1.0, 3.0, 4.5, -3.0),
]


@pytest.mark.parametrize(("value", "old_value", "target", "loss", "slope"), VALUE_CASES)
def test_clipped_value_loss_by_hand(value, old_value, target, loss, slope):
    got, derivative = jax.value_and_grad(policy.clipped_value_loss)(
        jnp.array(value), jnp.array(old_value), jnp.array(target), 0.2
    )
    np.testing.assert_allclose(got, loss, rtol=1e-5)
    np.testing.assert_allclose(derivative, slope, rtol=1e-5)


def test_values_are_not_clipped_by_default():
    assert PPOConfig().clip_value is False
    value, old_value, target = (jnp.array(x) for x in ([2.0, 0.0], [1.0, 1.0], [3.0, 3.0]))
    plain = 0.5 * jnp.square(value - target)
    unclipped = policy.clipped_value_loss(value, old_value, target, 1e6)
    np.testing.assert_allclose(unclipped, plain, rtol=1e-6)
    with pytest.raises(AssertionError):
        policy.clipped_value_loss(value, old_value[:, None], target, 0.2)


def test_integers_are_refused():
    one = jnp.array([1])
    with pytest.raises(AssertionError, match="type"):
        policy.clipped_surrogate(jnp.ones(1), one, 0.2)
    with pytest.raises(AssertionError, match="type"):
        policy.clipped_value_loss(jnp.ones(1), jnp.ones(1), one, 0.2)
    with pytest.raises(AssertionError, match="rank"):
        policy.adapted_beta(jnp.ones(1), jnp.float32(0.0), 0.01)
