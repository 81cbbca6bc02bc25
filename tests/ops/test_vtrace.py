"""V-trace against numbers worked by hand, rlax, and the sum of the paper written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from probes import naive_gae

from rljax.ops.vtrace import vtrace

NO = jnp.zeros(3, bool)
HAND = {
    "ratio": jnp.array([2.0, 0.5, 1.0]), "reward": jnp.array([1.0, 2.0, 3.0]),
    "value": jnp.array([0.5, 1.0, 1.5]), "next_value": jnp.array([1.0, 1.5, 2.0]),
}  # fmt: skip


def test_vtrace_by_hand():
    advantage, target = vtrace(**HAND, terminated=NO, truncated=NO, gamma=0.9)
    np.testing.assert_allclose(target, [4.294, 3.66, 4.8], rtol=1e-6)
    np.testing.assert_allclose(advantage, [3.794, 2.66, 3.3], rtol=1e-6)


def arrays(seed, shape=(9, 4)):
    rng = np.random.default_rng(seed)
    end = rng.random(shape)
    floats = [rng.normal(size=shape) for _ in range(3)]
    return np.exp(rng.normal(size=shape)), *floats, end < 0.15, end > 0.8


def by_definition(ratio, reward, value, next_value, terminated, truncated, gamma, rho_bar, c_bar):
    """Eq. 1: a sum of corrected TD errors, in float64."""
    rho, c = np.minimum(rho_bar, ratio), np.minimum(c_bar, ratio)
    done = terminated | truncated
    delta = rho * (reward + gamma * (1 - terminated) * next_value - value)
    target = value.copy()
    for t, b in np.ndindex(*value.shape):
        weight = 1.0
        for k in range(t, len(value)):
            target[t, b] += weight * delta[k, b]
            weight *= gamma * c[k, b]
            if done[k, b]:
                break
    following = next_value.copy()
    following[:-1] = np.where(done[:-1], next_value[:-1], target[1:])
    return rho * (reward + gamma * (1 - terminated) * following - value), target


@pytest.mark.parametrize(("rho_bar", "c_bar"), [(1.0, 1.0), (1.3, 0.7), (np.inf, 2.0)])
def test_vtrace_equals_the_sum_of_the_paper(rho_bar, c_bar):
    given = arrays(0)
    got = vtrace(*map(jnp.asarray, given), 0.9, rho_bar, c_bar)
    for x, y in zip(got, by_definition(*given, 0.9, rho_bar, c_bar), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_vtrace_equals_that_of_rlax_without_truncation():
    ratio, reward, value, _, terminated, _ = arrays(1)
    bootstrap = np.random.default_rng(2).normal(size=(1, value.shape[1]))
    next_value = np.concatenate([value[1:], bootstrap])
    advantage, target = vtrace(
        *map(jnp.asarray, (ratio, reward, value, next_value, terminated)),
        jnp.zeros_like(terminated), 0.9,
    )  # fmt: skip
    discount = 0.9 * (1.0 - terminated)
    oracle = jax.vmap(rlax.vtrace_td_error_and_advantage, 1, 1)
    expected = oracle(*(jnp.asarray(x, jnp.float32) for x in (value, next_value, reward, discount)),
                      jnp.asarray(ratio, jnp.float32))  # fmt: skip
    np.testing.assert_allclose(advantage, expected.pg_advantage, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(target - value, expected.errors, rtol=1e-5, atol=1e-5)


def test_on_policy_the_target_is_the_n_step_return():
    _, reward, value, next_value, terminated, truncated = arrays(3)
    following = np.concatenate([value[1:], next_value[-1:]])
    next_value = np.where(terminated | truncated, next_value, following)
    rest = reward, value, next_value, terminated, truncated
    advantage, target = vtrace(jnp.ones((9, 4)), *map(jnp.asarray, rest), 0.9)
    expected = naive_gae(*rest, 0.9, 1.0)
    np.testing.assert_allclose(advantage, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(target, expected + value, rtol=1e-5, atol=1e-5)


def test_outputs_have_no_gradient():
    def total(value, ratio):
        given = HAND | {"value": value, "ratio": ratio}
        return sum(x.sum() for x in vtrace(**given, terminated=NO, truncated=NO, gamma=0.9))

    gradients = jax.grad(total, argnums=(0, 1))(HAND["value"], HAND["ratio"])
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros(3))


def test_shapes_must_be_equal():
    with pytest.raises(AssertionError):
        vtrace(**HAND, terminated=NO[:2], truncated=NO, gamma=0.9)
