"""Running moments against those of numpy over all the data."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rljax.ops import moments as running

update_moments = jax.jit(running.update_moments)


def moments_of(*batches, shape=()):
    moments = running.init_moments(shape)
    for batch in batches:
        moments = update_moments(moments, jnp.asarray(batch))
    return moments


def assert_moments(moments, samples, rtol=1e-5):
    np.testing.assert_allclose(moments.mean, samples.mean(0), rtol=rtol, atol=1e-6)
    np.testing.assert_allclose(moments.variance, samples.var(0), rtol=rtol, atol=1e-6)
    np.testing.assert_array_equal(moments.num_samples, len(samples))


def test_moments_by_hand():
    one = moments_of(jnp.arange(1.0, 5.0))
    np.testing.assert_allclose((one.mean, one.variance, one.num_samples), (2.5, 1.25, 4), rtol=1e-6)
    both = moments_of(jnp.arange(1.0, 5.0), jnp.arange(5.0, 9.0))
    np.testing.assert_allclose(
        (both.mean, both.variance, both.num_samples), (4.5, 5.25, 8), rtol=1e-6
    )


def test_moments_of_no_samples_standardize_to_the_input():
    x = jnp.linspace(-3, 3, 6).reshape(2, 3)
    np.testing.assert_allclose(running.standardize(x, running.init_moments((3,))), x)


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from([1, 2, 5, 40]), min_size=1, max_size=6))
def test_moments_do_not_depend_on_the_split_into_batches(seed, sizes):
    rng = np.random.default_rng(seed)
    batches = [rng.normal(rng.normal(), 2.0, (size, 3)).astype(np.float32) for size in sizes]
    assert_moments(moments_of(*batches, shape=(3,)), np.concatenate(batches))


def test_all_leading_axes_are_samples():
    batch = np.random.default_rng(0).normal(size=(5, 4, 2, 3)).astype(np.float32)
    assert_moments(moments_of(batch, shape=(2, 3)), batch.reshape(20, 2, 3))
    assert_moments(moments_of(batch), batch.reshape(-1))


def test_moments_of_data_far_from_zero():
    """E x^2 - (E x)^2 would lose all digits."""
    data = (1e4 + np.random.default_rng(0).normal(size=(8, 100))).astype(np.float32)
    assert_moments(moments_of(*data), data.reshape(-1).astype(np.float64), rtol=1e-2)


def test_moments_of_bytes():
    batch = np.random.default_rng(0).integers(0, 256, (50, 2)).astype(np.uint8)
    assert_moments(moments_of(batch, batch[:7], shape=(2,)), np.concatenate([batch, batch[:7]]))


def test_workers_get_the_moments_of_all_samples():
    data = np.random.default_rng(0).normal(size=(3, 4, 25, 2)).astype(np.float32)  # [batch, worker]
    data += 10 * np.arange(4, dtype=np.float32)[:, None, None]  # workers have different means
    average = partial(jax.lax.pmean, axis_name="workers")
    update = partial(running.update_moments, average=average)
    update = jax.jit(jax.vmap(update, axis_name="workers"))
    moments = jax.tree.map(lambda x: jnp.stack([x] * 4), running.init_moments((2,)))
    for batch in data:
        moments = update(moments, batch)
    everything = data.reshape(-1, 2)
    for worker in range(4):
        np.testing.assert_allclose(moments.mean[worker], everything.mean(0), rtol=1e-5)
        np.testing.assert_allclose(moments.variance[worker], everything.var(0), rtol=1e-5)


def standardized(*x):
    x = jnp.array(x)
    return running.standardize(x, moments_of(x))


def test_standardize_divides_by_the_population_std():
    expected = [-1.341641, -0.447214, 0.447214, 1.341641]  # with N - 1: 1.161895, .387298
    np.testing.assert_allclose(standardized(1.0, 2.0, 3.0, 4.0), expected, atol=1e-5)
    np.testing.assert_allclose(
        standardized(2.71, 1.9, 1.0), [1.202703, 0.042954, -1.245657], atol=1e-5
    )


@pytest.mark.parametrize("same", [(5.0,), (3.0, 3.0, 3.0)])
def test_standardize_of_equal_numbers_is_zero(same):
    np.testing.assert_array_equal(standardized(*same), np.zeros(len(same)))
    gradient = jax.jacobian(lambda x: running.standardize(x, moments_of(x)))(jnp.array(same))
    assert np.isfinite(gradient).all()


def test_samples_of_the_wrong_shape_are_refused():
    moments = running.init_moments((3,))
    for function in (lambda x: running.standardize(x, moments), partial(update_moments, moments)):
        with pytest.raises(AssertionError, match="shape"):
            function(jnp.ones((5, 2)))
