"""The cross-entropy method against numpy, and on problems with known solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rljax.ops.cross_entropy import (
    MIN_PROBABILITY,
    Gaussian,
    categorical,
    cross_entropy_method,
    gaussian,
)

BEST = np.array([[0.5, -0.25], [-0.9, 0.1], [0.0, 0.75]])


def test_gaussian_fit_is_the_maximum_likelihood_estimate():
    sequences = np.random.default_rng(0).normal(size=(20, 3, 2))
    params = gaussian().fit(jnp.asarray(sequences, jnp.float32))
    for mean, std, sample in zip(
        params.mean.ravel(), params.std.ravel(), sequences.reshape(20, -1).T, strict=True
    ):
        np.testing.assert_allclose((mean, std), stats.norm.fit(sample), rtol=1e-5, atol=1e-6)


def test_gaussian_samples_have_the_parameters_and_stay_in_the_box():
    params = Gaussian(jnp.array([[0.2], [0.9]]), jnp.array([[0.1], [0.5]]))
    sample = np.asarray(gaussian().sample(params, jax.random.key(0), 4000))
    assert sample.shape == (4000, 2, 1)
    assert stats.kstest(sample[:, 0, 0], stats.norm(0.2, 0.1).cdf).pvalue > 1e-3
    assert (np.abs(sample) <= 1.0).all()
    assert np.isclose((sample[:, 1] == 1.0).mean(), stats.norm.sf(0.2), atol=0.03)


def test_categorical_samples_have_the_probabilities():
    probability = jnp.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    sample = np.asarray(categorical(3).sample(probability, jax.random.key(1), 3000))
    for step in range(2):
        counts = np.bincount(sample[:, step], minlength=3)
        assert stats.chisquare(counts, 3000 * np.asarray(probability[step])).pvalue > 1e-3


def test_categorical_fit_counts_and_keeps_a_smallest_probability():
    fitted = categorical(4).fit(jnp.array([[0, 3], [0, 3], [1, 3], [0, 3]]))
    counts = np.array([[0.75, 0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    expected = (1 - MIN_PROBABILITY) * counts + MIN_PROBABILITY / 4
    np.testing.assert_allclose(fitted, expected, rtol=1e-6)
    np.testing.assert_array_equal(categorical(4).mode(fitted), [0, 3])


def test_one_iteration_against_numpy():
    proposal, start = gaussian(), Gaussian(jnp.zeros((3, 2)), jnp.full((3, 2), 0.5))
    seen = []

    def objective(sequences, key):
        del key
        jax.debug.callback(lambda x: seen.append(np.float64(x)), sequences)
        return -jnp.square(sequences - BEST[None]).sum(axis=(1, 2))

    params = cross_entropy_method(
        objective, proposal, start, jax.random.key(0), num_iterations=1, num_candidates=30,
        num_elites=5, smoothing=0.2,
    )  # fmt: skip
    jax.effects_barrier()
    (candidates,) = seen
    distance = np.square(candidates - BEST).sum(axis=(1, 2))
    elites = candidates[np.argsort(distance)[:5]]
    np.testing.assert_allclose(params.mean, 0.8 * elites.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(params.std, 0.2 * 0.5 + 0.8 * elites.std(axis=0), rtol=1e-5)


def test_finds_the_maximum_of_a_quadratic():
    params = cross_entropy_method(
        lambda x, key: -jnp.square(x - BEST[None]).sum(axis=(1, 2)), gaussian(),
        Gaussian(jnp.zeros((3, 2)), jnp.full((3, 2), 0.5)), jax.random.key(0), num_iterations=20,
        num_candidates=200, num_elites=20,
    )  # fmt: skip
    np.testing.assert_allclose(params.mean, BEST, atol=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_finds_a_sequence_of_which_only_the_whole_is_rewarded_most(seed):
    """Each correct action of 6 gives 1; 3 actions a step, so 729 sequences."""
    best = jnp.array([2, 0, 1, 1, 0, 2])
    params = cross_entropy_method(
        lambda x, key: (x == best[None]).sum(axis=1).astype(jnp.float32), categorical(3),
        jnp.full((6, 3), 1 / 3), jax.random.key(seed), num_iterations=6, num_candidates=60,
        num_elites=6,
    )  # fmt: skip
    np.testing.assert_array_equal(categorical(3).mode(params), best)
