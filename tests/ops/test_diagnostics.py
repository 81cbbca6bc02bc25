"""Explained variance, saturation and values against numpy, on small batches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.ops.diagnostics import action_saturation, explained_variance, q_value_metrics

pytestmark = pytest.mark.usefixtures("quick_compiles")


def ratio(mean):
    return float(mean.total / mean.weight)


def by_numpy(value, target):
    value, target = np.asarray(value, np.float64), np.asarray(target, np.float64)
    return 1 - np.var(target - value) / np.var(target)


@pytest.mark.parametrize("shape", [(7,), (5, 3)])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_explained_variance(shape, offset):
    rng = np.random.default_rng(0)
    target = (offset + rng.normal(size=shape)).astype(np.float32)
    value = (target + 0.5 * rng.normal(size=shape)).astype(np.float32)
    got = explained_variance(jnp.asarray(value), jnp.asarray(target))
    np.testing.assert_allclose(ratio(got), by_numpy(value, target), rtol=1e-3)
    np.testing.assert_allclose(got.weight, np.var(target.astype(np.float64)), rtol=1e-3)


def test_explained_variance_of_exact_constant_and_opposite_values():
    target = jnp.array([1.0, 2.0, 4.0])
    assert ratio(explained_variance(target + 5.0, target)) == 1.0
    assert ratio(explained_variance(jnp.full(3, 7.0), target)) == 0.0
    np.testing.assert_allclose(ratio(explained_variance(-target, target)), -3.0, rtol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 1.1, -1e6])
def test_constant_targets_have_no_weight(constant):
    """Their variance is exactly 0, without a rounding error of the mean."""
    value = jnp.linspace(0.0, 1.0, 999)
    got = explained_variance(value, jnp.full(999, constant))
    assert got.weight == 0 and np.isfinite(got.total)


def test_explained_variance_of_several_updates_is_that_of_the_summed_variances():
    updates = [(jnp.array([0.0, 2.0]), jnp.array([0.0, 4.0])), (jnp.zeros(2), jnp.ones(2))]
    means = [explained_variance(*update) for update in updates]
    total, weight = (sum(float(x[i]) for x in means) for i in range(2))
    assert total / weight == 1 - 1 / 4  # Var(target - value) is 1 and 0, Var(target) is 4 and 0


def test_workers_share_the_means():
    rng = np.random.default_rng(1)
    value = rng.normal(size=(4, 6)).astype(np.float32)
    target = (
        rng.normal(size=(4, 6)).astype(np.float32) + 3.0 * np.arange(4, dtype=np.float32)[:, None]
    )
    mean = partial(jax.lax.pmean, axis_name="workers")
    of_workers = partial(explained_variance, average=mean)
    got = jax.vmap(of_workers, axis_name="workers")(value, target)
    np.testing.assert_allclose(got.total / got.weight, by_numpy(value, target), rtol=1e-5)
    assert len(set(got.weight.tolist())) == 1


def test_explained_variance_of_some_of_the_samples():
    value, target = jnp.array([9.0, 1.0, 2.0, 5.0]), jnp.array([0.0, 2.0, 7.0, 4.0])
    chosen = jnp.array([False, True, True, True])

    def mean(x):
        return jnp.where(chosen, x, 0.0).sum() / 3

    got = explained_variance(value, target, mean=mean)
    np.testing.assert_allclose(ratio(got), by_numpy(value[1:], target[1:]), rtol=1e-5)


def test_action_saturation():
    action = np.random.default_rng(2).normal(size=(5, 4, 3)).astype(np.float32)
    saturation = action_saturation(jnp.asarray(action))
    np.testing.assert_allclose(saturation, np.mean(abs(action) >= 0.99), rtol=1e-6)
    assert action_saturation(jnp.array([-1.0, 1.0, 0.99, 7.0])) == 1
    assert action_saturation(jnp.array([-0.98, 0.0])) == 0


def test_values_of_a_batch():
    q = np.random.default_rng(3).normal(size=(2, 5)).astype(np.float32)
    got = q_value_metrics(jnp.asarray(q))
    np.testing.assert_allclose(got["losses/q_value"], q.mean(), rtol=1e-5)
    assert got["losses/q_value_max"] == q.max()
