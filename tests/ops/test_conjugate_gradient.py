"""Conjugate gradient, natural step and line search, against numpy and scipy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from rljax.ops.conjugate_gradient import conjugate_gradient, line_search, natural_step

DIAGONAL, GRADIENT = jnp.array([2.0, 8.0]), jnp.array([1.0, 2.0])


def of_diagonal(vector):
    return DIAGONAL * vector


def test_the_natural_step_by_hand():
    """F = diag(2, 8), g = (1, 2), delta = 0.01; two distinct eigenvalues, two iterations."""
    direction = conjugate_gradient(of_diagonal, GRADIENT, num_iterations=2)
    np.testing.assert_allclose(direction, [0.5, 0.25], rtol=1e-6)
    once = conjugate_gradient(of_diagonal, GRADIENT, num_iterations=1)
    assert np.abs(once - direction).max() > 0.05
    step = natural_step(of_diagonal, GRADIENT, 0.01)
    np.testing.assert_allclose(step / direction, [0.1414214] * 2, rtol=1e-6)
    np.testing.assert_allclose(step, [0.0707107, 0.0353553], rtol=1e-5)
    np.testing.assert_allclose(0.5 * step @ of_diagonal(step), 0.01, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_conjugate_gradient_solves_a_linear_system(scale):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(12, 8))
    matrix, target = root.T @ root + np.eye(8), scale * rng.normal(size=8)
    given = jnp.asarray(matrix, jnp.float32), jnp.asarray(target, jnp.float32)
    got = conjugate_gradient(lambda v: given[0] @ v, given[1], num_iterations=20)
    np.testing.assert_allclose(got, np.linalg.solve(matrix, target), rtol=1e-4, atol=1e-5 * scale)


def test_every_iterate_equals_that_of_scipy():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(9, 6))
    matrix, target = root.T @ root + np.eye(6), rng.normal(size=6)
    given = jnp.asarray(matrix, jnp.float32), jnp.asarray(target, jnp.float32)
    for count in (1, 2, 3):
        expected, _ = scipy.sparse.linalg.cg(matrix, target, maxiter=count, rtol=0.0)
        got = conjugate_gradient(lambda v: given[0] @ v, given[1], num_iterations=count)
        np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_a_zero_gradient_gives_a_zero_step():
    zero = jnp.zeros(2)
    np.testing.assert_array_equal(conjugate_gradient(of_diagonal, zero), zero)
    np.testing.assert_array_equal(natural_step(of_diagonal, zero, 0.01), zero)
    # and so does a Fisher matrix of zeros
    np.testing.assert_array_equal(natural_step(lambda v: 0.0 * v, GRADIENT, 0.01), zero)


def test_the_first_accepted_step_is_taken():
    limits = jnp.array([3.0, 1.0, 1.6, 1.2, 0.1])  # largest accepted first coordinate
    start, step = jnp.array([1.0, 0.0]), jnp.array([1.0, 4.0])

    @jax.vmap
    def search(limit):  # under vmap, searches of different lengths
        return line_search(lambda x: x[0] <= limit, start, step, num_halvings=3)

    point, fraction = search(limits)
    np.testing.assert_allclose(fraction, [1.0, 0.0, 0.5, 0.125, 0.0])
    np.testing.assert_array_equal(point, [start + x * step for x in fraction])


def test_without_an_accepted_step_the_start_is_returned_to_the_bit():
    start = jnp.array([0.1, np.float32(1e-8)])
    step = jnp.array([jnp.nan, 1.0])  # also if the step is NaN
    point, fraction = line_search(lambda x: jnp.isfinite(x).all(), start, step)
    assert point.tobytes() == start.tobytes() and fraction == 0.0


def test_the_number_of_halvings_is_limited():
    start, step = jnp.zeros(1), jnp.ones(1)
    for halvings, expected in ((2, 0.0), (3, 0.125)):
        accept = lambda x: x[0] < 0.2  # noqa: E731
        assert line_search(accept, start, step, halvings)[1] == expected
