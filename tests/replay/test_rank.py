"""Rank-based prioritized replay: its probabilities, sorted and between two sorts."""

import jax.numpy as jnp
import numpy as np
import pytest
from replay_helpers import filled, item, items, jitted_add, sample_many
from scipy import stats

from rljax import replay


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
def test_probabilities_of_a_worked_example(exponent):
    buffer = replay.rank_based(8, 4, exponent, sort_every=1)
    state = buffer.add(buffer.init(item(0)), items(0, 5, 1))
    errors = np.array([0.5, -2.0, 0.0, 1.5, 1.0], np.float32)
    state = buffer.reprioritize(state, jnp.arange(5), jnp.asarray(errors))
    state = buffer.add(state, items(0, 1, 1))  # sorts; the new item gets the largest error, 2
    expected = np.array([5, 2, 6, 3, 4, 1.0]) ** -exponent  # of equal errors the older is first
    expected[[1, 5]] = np.array([1, 2.0]) ** -exponent
    expected /= expected.sum()
    sample = sample_many(buffer, state, 5000)
    np.testing.assert_allclose(sample.probability, expected[sample.indices], rtol=1e-5)
    np.testing.assert_allclose(sample.min_probability, expected.min(), rtol=1e-5)
    counts = np.bincount(sample.indices.ravel(), minlength=6)
    assert counts.size == 6 and (np.abs(counts / counts.sum() - expected) < 0.02).all()


def test_reported_probabilities_are_exact_between_two_sorts():
    buffer = replay.rank_based(64, 16, sort_every=24)
    state = filled(buffer, 40)
    error = jnp.asarray(np.random.default_rng(0).exponential(size=40).astype(np.float32))
    state = buffer.reprioritize(state, jnp.arange(40), error)
    state = jitted_add(buffer)(state, items(40, 1, 3))
    sample = sample_many(buffer, state, 5000)
    counts = np.bincount(sample.indices.ravel(), minlength=43)
    expected = np.zeros(43)
    expected[sample.indices.ravel()] = sample.probability.ravel()
    assert expected.sum() == pytest.approx(1, abs=1e-5)
    assert stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue >= 1e-6
