"""Random permutations against the uniform distribution over permutations.

Sizes up to 8192 sort packed words; larger powers of two are permuted by a Feistel network, and
other sizes by `jax.random.permutation`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rljax.ops import shuffling


@partial(jax.jit, static_argnums=(1, 2))
def shuffles(key, num, size):
    return shuffling.permutations(key, num, size)


ROWS = {
    1: 5, 2: 2000, 3: 3000, 7: 2000, 512: 100, 8192: 12, 20000: 4, 2**15: 12, 2**16: 12,
}  # fmt: skip


@pytest.mark.parametrize("size", ROWS)
def test_every_row_is_a_permutation(size):
    rows = shuffles(jax.random.key(0), ROWS[size], size)
    assert rows.shape == (ROWS[size], size)
    assert rows.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(size), (len(rows), 1)))


@pytest.mark.parametrize("size", [2, 3])
def test_every_order_is_equally_likely(size):
    rows = np.asarray(shuffles(jax.random.key(1), ROWS[size], size))
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(counts) == {2: 2, 3: 6}[size]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("size", [7, 512, 8192, 20000, 2**15, 2**16])
def test_every_index_is_equally_likely_in_every_place(size):
    rows = np.asarray(shuffles(jax.random.key(2), ROWS[size], size))
    bins = min(size, 8)
    place = np.tile(np.arange(size) * bins // size, len(rows))
    counts, *_ = np.histogram2d(place, (rows * bins // size).reshape(-1), bins=bins)
    block = np.bincount(np.arange(size) * bins // size)
    expected = len(rows) * np.outer(block, block) / size
    statistic = (np.square(counts - expected) / expected).sum()
    # rows and columns of a permutation have fixed sums: (bins - 1)^2 degrees of freedom. The
    # two-sided test also rejects a shuffle that is too uniform
    assert 1e-3 < scipy.stats.chi2.sf(statistic, (bins - 1) ** 2) < 1 - 1e-3


@pytest.mark.parametrize("size", [7, 512, 8192, 2**15, 2**16])
def test_neighbors_are_in_either_order_with_equal_probability(size):
    rows = np.asarray(shuffles(jax.random.key(3), ROWS[size], size))
    place = np.argsort(rows, axis=1)
    first = (place[:, :-1] < place[:, 1:]).mean()
    assert abs(first - 0.5) < 4 * 0.5 / np.sqrt(len(rows) * (size - 1) / 2)


@pytest.mark.parametrize("size", [512, 8192, 20000, 2**15, 2**16])
def test_rows_are_independent(size):
    """Two shuffles agree in one place on average, however long they are."""
    rows = np.asarray(shuffles(jax.random.key(4), ROWS[size], size))
    pairs = [(rows[i] == rows[i + 1]).sum() for i in range(len(rows) - 1)]
    assert abs(np.mean(pairs) - 1) < 4 / np.sqrt(len(pairs))
    correlation = np.corrcoef(rows[0], rows[1])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(size)


def test_permutations_depend_on_the_key_only():
    keys = jax.random.split(jax.random.key(5), 3)
    one, same = (shuffles(keys[0], 100, 512) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert (one != shuffles(keys[1], 100, 512)).mean() > 0.9
    together = jax.vmap(lambda key: shuffles(key, 100, 512))(keys)
    for i in range(3):
        np.testing.assert_array_equal(together[i], shuffles(keys[i], 100, 512))


@pytest.mark.parametrize("size", [16, 32, 64])
def test_pairs_of_a_feistel_network_are_equally_likely(size):
    """In two places each pair of different indices is equally likely: neighbors and far apart."""
    num = 100 * size * (size - 1)
    rows = np.asarray(
        jax.jit(shuffling.feistel_permutations, static_argnums=(1, 2))(jax.random.key(6), num, size)
    )
    np.testing.assert_array_equal(np.sort(rows[:1000], axis=1)[:, -1], size - 1)
    for first, second in ((0, 1), (0, size - 1), (1, size // 2 + 1)):
        counts = np.bincount(rows[:, first] * size + rows[:, second], minlength=size * size)
        different = ~np.eye(size, dtype=bool).ravel()
        assert counts[~different].sum() == 0
        assert 1e-4 < scipy.stats.chisquare(counts[different]).pvalue < 1 - 1e-4


def test_a_feistel_network_leaves_no_trace_of_the_order():
    """Differences of neighbors in place are spread like those of a uniform permutation."""
    size, rows = 2**16, np.asarray(shuffles(jax.random.key(7), 12, 2**16))
    difference = np.diff(rows, axis=1) % size
    counts = np.bincount((difference * 64 // size).ravel(), minlength=64)
    assert 1e-4 < scipy.stats.chisquare(counts).pvalue < 1 - 1e-4
    for bit in range(16):  # each bit of the result against each bit of the place
        ones = (rows >> bit) & 1
        for place_bit in range(16):
            place = (np.arange(size) >> place_bit) & 1
            agree = (ones == place).sum(axis=1) / size
            assert abs(agree.mean() - 0.5) < 5 * 0.5 / np.sqrt(rows.size)
