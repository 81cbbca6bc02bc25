"""Categorical supports of values, against rlax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from rljax.ops.value_supports import (
    from_support,
    signed_hyperbolic,
    signed_parabolic,
    to_support,
    two_hot,
)

VALUES = jnp.array([-1e6, -300.0, -17.3, -1.0, -1e-3, 0.0, 1e-6, 0.3, 2.0, 499.9, 1e6])


def test_the_transform_is_that_of_rlax():
    np.testing.assert_allclose(
        signed_hyperbolic(VALUES), rlax.signed_hyperbolic(VALUES), rtol=1e-6, atol=1e-7
    )


def test_the_inverse_is_exact_in_float64_digits():
    """rlax subtracts nearly equal numbers, so the oracle is its formula in float64."""
    x = np.float64(VALUES) / 100
    root = (np.sqrt(1 + 4e-3 * (np.abs(x) + 1 + 1e-3)) - 1) / 2e-3
    expected = np.sign(x) * (root**2 - 1)
    np.testing.assert_allclose(signed_parabolic(jnp.float32(x)), expected, rtol=3e-6)
    np.testing.assert_allclose(
        rlax.signed_parabolic(jnp.float32(x)), expected, rtol=1e-3, atol=1e-3
    )


def test_the_inverse_undoes_the_transform_and_has_a_gradient_at_zero():
    np.testing.assert_allclose(signed_parabolic(signed_hyperbolic(VALUES)), VALUES, rtol=2e-5)
    slope = jax.grad(lambda x: signed_parabolic(x))(jnp.float32(0))
    assert np.isfinite(slope) and slope == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("support_size", [1, 20])
def test_two_hot_is_that_of_rlax(support_size):
    x = jnp.clip(VALUES, -25, 25)
    expected = rlax.transform_to_2hot(x, -support_size, support_size, 2 * support_size + 1)
    found = two_hot(x, support_size)
    np.testing.assert_allclose(found, expected, atol=2e-5)  # rlax adds 1e-5 to a distance
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, rtol=1e-6)
    assert ((found > 0).sum(axis=-1) <= 2).all()


def test_values_of_logits_are_those_of_rlax():
    logits = jax.random.normal(jax.random.key(0), (5, 3, 21))
    mean = rlax.transform_from_2hot(jax.nn.softmax(logits.reshape(15, 21)), -10, 10, 21)
    np.testing.assert_allclose(
        from_support(logits), rlax.signed_parabolic(mean.reshape(5, 3)), rtol=1e-4, atol=1e-3
    )


def test_values_within_the_support_are_restored_and_others_clipped():
    values = jnp.array([-300.0, -17.3, 0.0, 0.3, 420.0])
    restored = from_support(jnp.log(to_support(values, 20)))
    np.testing.assert_allclose(restored, values, rtol=1e-4, atol=1e-4)
    largest = from_support(jnp.log(to_support(jnp.array([1e15, -1e15]), 20)))
    expected = signed_parabolic(jnp.array([20.0, -20.0]))
    np.testing.assert_allclose(largest, expected, rtol=1e-5)
