"""Layers: orthogonal initialization against the Haar distribution, and hidden layers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rljax import networks

KEY = jax.random.key(0)


def assert_orthonormal(kernel, scale=1.0):
    """The columns of `[prod(...) in, out]` are orthonormal, or its rows where it is wide."""
    matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]) / scale
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


SHAPES = {
    "tall": (64, 16),
    "wide": (16, 64),
    "square": (64, 64),
    "one column": (7, 1),
    "one row": (1, 7),
    "one": (1, 1),
    "tall convolution": (3, 3, 4, 16),
    "wide convolution": (3, 3, 1, 16),
}


@partial(jax.jit, static_argnums=1)
def kernel_of(key, shape):
    return networks.orthogonal()(key, shape)


@pytest.mark.parametrize("name", SHAPES)
def test_orthogonal_kernels_are_orthonormal(name):
    kernel = kernel_of(KEY, SHAPES[name])
    assert kernel.shape == SHAPES[name]
    assert kernel.dtype == jnp.float32
    assert_orthonormal(kernel)


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (64, 64)])
def test_orthogonal_kernels_under_vmap(shape):
    keys = jax.random.split(KEY, 4)
    for key, kernel in zip(keys, jax.vmap(lambda key: kernel_of(key, shape))(keys), strict=True):
        assert_orthonormal(kernel)
        np.testing.assert_allclose(kernel, kernel_of(key, shape), atol=1e-5)


def test_orthogonal_kernels_are_scaled():
    kernel = networks.orthogonal(2.0**0.5)(KEY, (64, 16))
    assert_orthonormal(kernel, 2.0**0.5)
    np.testing.assert_allclose(kernel_of(KEY, (64, 16)) * 2.0**0.5, kernel, atol=1e-5)


def test_orthogonal_kernels_depend_on_the_key_only():
    np.testing.assert_array_equal(kernel_of(KEY, (64, 16)), kernel_of(KEY, (64, 16)))
    other = kernel_of(jax.random.key(1), (64, 16))
    assert np.abs(kernel_of(KEY, (64, 16)) - other).max() > 0.1


def test_orthogonal_kernel_of_a_nearly_singular_gaussian():
    """About one Gaussian in 10^5 of this size has a singular value of 1e-7 of its norm."""
    assert_orthonormal(kernel_of(jax.random.key(458487), (8, 8)))


@pytest.fixture(scope="module")
def samples():
    """4000 kernels of shape 4 x 4, and as many samples of the Haar distribution."""
    keys = jax.random.split(KEY, 4000)
    ours = jax.jit(jax.vmap(lambda key: networks.orthogonal()(key, (4, 4))))(keys)
    return np.asarray(ours), scipy.stats.ortho_group(4, seed=0).rvs(4000)


def test_orthogonal_entries_have_the_moments_of_haar(samples):
    ours, _ = samples
    np.testing.assert_allclose(ours.mean(0), np.zeros((4, 4)), atol=4 * 0.5 / 4000**0.5)
    np.testing.assert_allclose(np.square(ours).mean(0), np.full((4, 4), 1 / 4), atol=0.02)
    np.testing.assert_allclose((ours**4).mean(), 3 / (4 * 6), rtol=0.02)


@pytest.mark.parametrize(
    "statistic",
    [
        lambda q: q[:, 0, 0],
        lambda q: q[:, 3, 1],
        lambda q: np.trace(q, axis1=1, axis2=2),  # depends on the signs of a QR
        lambda q: q[:, 0, 0] * q[:, 1, 1],
        np.linalg.det,
    ],
    ids=["first entry", "other entry", "trace", "product", "determinant"],
)
def test_orthogonal_kernels_have_the_haar_distribution(samples, statistic):
    ours, theirs = (statistic(q).round(4) for q in samples)
    assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_mlp_uses_the_named_activation():
    x = jnp.linspace(-2, 2, 6).reshape(2, 3)
    for name, function in networks.ACTIVATIONS.items():
        network = networks.MLP((4,), name)
        params = network.init(KEY, x)
        kernel = params["params"]["Dense_0"]["kernel"]
        np.testing.assert_allclose(network.apply(params, x), function(x @ kernel), atol=1e-5)
