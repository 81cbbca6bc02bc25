"""The sum tree against prefix sums in float64, and a worked example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_helpers import equations
from scipy import stats

from rljax.replay import sum_tree

LEAVES = (3, 10, 12, 4, 1, 2, 8, 2)  # total 42
CAPACITIES = (1, 2, 3, 5, 7, 1000, 1023, 65536)
seeds = st.integers(0, 2**32 - 1)

set_leaves = jax.jit(sum_tree.set)
find_leaves = jax.jit(sum_tree.find)


def tree_of(leaves, branching=8):
    leaves = jnp.asarray(leaves, jnp.float32)
    tree = sum_tree.init(leaves.size, branching)
    return set_leaves(tree, jnp.arange(leaves.size), leaves)


def found(tree, queries):
    return np.asarray(find_leaves(tree, jnp.asarray(queries, jnp.float32))[0])


def leaves_of(tree, capacity):
    return np.asarray(sum_tree.get(tree, jnp.arange(capacity)))


@pytest.mark.parametrize("branching", [2, 3, 8, 16])
def test_the_worked_example(branching):
    """A query finds the first leaf whose prefix sum exceeds it: 24 finds the leaf of 12."""
    tree = tree_of(LEAVES, branching)
    assert sum_tree.total(tree) == 42 and sum_tree.min_priority(tree) == 1
    assert LEAVES[found(tree, [24])[0]] == 12
    queries = [0, 2.999, 3, 13, 24, 25, 28.5, 29, 30, 41.999]
    np.testing.assert_array_equal(found(tree, queries), [0, 0, 1, 2, 2, 3, 3, 4, 5, 7])


def test_parents_of_a_binary_tree_are_sums_of_two():
    tree = tree_of(LEAVES, 2)
    sums = [level[0].ravel().tolist() for level in tree.parents]
    assert sums == [[13, 16, 3, 10], [29, 13]]


def test_the_middles_of_six_segments_find_six_leaves():
    queries = 7 * np.arange(6) + 3.5
    np.testing.assert_array_equal(found(tree_of(LEAVES), queries), [1, 1, 2, 2, 5, 6])


def test_a_leaf_of_priority_zero_is_never_found():
    """Also not by queries below 0, at the total, or above it."""
    np.testing.assert_array_equal(found(tree_of([0, 5]), [0, -1, 5, 9]), 1)
    tree = tree_of([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0])
    queries = [-1, 0, 1.9999, 2, 4.9999, 5, 6, np.inf]
    np.testing.assert_array_equal(found(tree, queries), [2, 2, 2, 10, 10, 10, 10, 10])


@pytest.mark.parametrize("capacity", [1, 3, 8, 9, 64, 65, 1000])
def test_no_query_finds_a_leaf_of_priority_zero_or_of_the_padding(capacity):
    """10^7 queries in all, in each tree some at and just below its total."""
    rng = np.random.default_rng(capacity)
    leaves = rng.exponential(size=capacity) * (rng.random(capacity) < 0.5)
    leaves[rng.integers(capacity)] = 0.1
    leaves = leaves.astype(np.float32)
    tree, num_queries = tree_of(leaves), 1_500_000
    total = sum_tree.total(tree)

    @jax.jit
    def count(key):
        queries = jax.random.uniform(key, (num_queries,)) * total
        largest = total * (1 - jnp.arange(100) * 2.0**-24)
        indices, priorities = sum_tree.find(tree, queries.at[:100].set(largest))
        return (priorities <= 0).sum(), (indices >= capacity).sum(), indices[:100]

    num_zero, num_padding, last = count(jax.random.key(0))
    assert num_zero == 0 and num_padding == 0
    assert last[0] == np.flatnonzero(leaves)[-1]


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_leaves_are_found_in_proportion(capacity):
    """A chi-square test over 200,000 queries."""
    rng = np.random.default_rng(capacity)
    leaves = rng.gamma(1.0, size=capacity) + 0.05
    leaves[rng.random(capacity) < 0.1] = 0
    leaves[0] = 1.0
    tree, draws = tree_of(leaves), 200_000
    queries = jax.random.uniform(jax.random.key(capacity), (draws,)) * sum_tree.total(tree)
    counts = np.bincount(found(tree, queries), minlength=capacity)
    assert counts[leaves == 0].sum() == 0
    counts, leaves = counts[leaves > 0], leaves[leaves > 0]
    groups = np.minimum(np.arange(leaves.size) // max(1, leaves.size // 2000), 2000)
    expected = np.bincount(groups, leaves) / leaves.sum() * draws
    if expected.size > 1:
        assert stats.chisquare(np.bincount(groups, counts), expected).pvalue >= 1e-6


@given(seeds, st.sampled_from([1, 7, 9, 65, 600]), st.sampled_from([2, 8]))
def test_sums_minima_and_queries_follow_from_the_leaves(seed, capacity, branching):
    """`set` with repeated indices against a numpy loop; the rest against float64."""
    rng = np.random.default_rng(seed)
    tree, leaves = sum_tree.init(capacity, branching), np.zeros(capacity, np.float32)
    for _ in range(3):
        indices = rng.integers(capacity, size=40)
        values = (rng.random(40) * (rng.random(40) < 0.8)).astype(np.float32)
        tree = set_leaves(tree, indices, values)
        for index, value in zip(indices, values, strict=True):
            leaves[index] = value  # the last counts
    np.testing.assert_array_equal(leaves_of(tree, capacity), leaves)
    exact = leaves.astype(np.float64)
    np.testing.assert_allclose(sum_tree.total(tree), exact.sum(), rtol=1e-6)
    positive = leaves[leaves > 0]
    assert sum_tree.min_priority(tree) == (positive.min() if positive.size else np.inf)
    if positive.size:
        ends = np.cumsum(exact)
        queries = rng.random(50) * exact.sum()
        clear = np.abs(queries[:, None] - ends[None]).min(1) > 1e-5 * exact.sum()
        expected = np.searchsorted(ends, queries, side="right")
        np.testing.assert_array_equal(found(tree, queries)[clear], expected[clear])


def test_find_returns_the_priorities():
    indices, priorities = find_leaves(tree_of(LEAVES), jnp.arange(42.0))
    np.testing.assert_array_equal(priorities, np.array(LEAVES)[indices])


def test_of_a_repeated_index_the_last_priority_counts():
    tree = set_leaves(tree_of(LEAVES), jnp.array([3, 3]), jnp.array([5.0, 5.0]))
    assert sum_tree.total(tree) == 43 and leaves_of(tree, 8)[3] == 5
    tree = set_leaves(tree, jnp.array([3, 0, 3, 3]), jnp.array([9.0, 1.0, 0.5, 7.0]))
    assert leaves_of(tree, 8)[3] == 7 and sum_tree.total(tree) == 43
    tree = set_leaves(tree, jnp.array([3, 3]), jnp.array([7.0, 0.0]))
    assert leaves_of(tree, 8)[3] == 0 and sum_tree.total(tree) == 36


def test_indices_outside_the_tree_are_ignored():
    outside = np.iinfo(np.int32).max
    tree = set_leaves(tree_of(LEAVES), jnp.array([outside, 2]), jnp.array([100.0, 13.0]))
    assert sum_tree.total(tree) == 43
    np.testing.assert_array_equal(leaves_of(tree, 8), [3, 10, 13, 4, 1, 2, 8, 2])


@pytest.mark.parametrize(
    ("capacity", "updates", "bound"), [(1000, 10**5, 1e-5), (2**20, 10**6, 1e-6)]
)
def test_rounding_errors_do_not_accumulate(capacity, updates, bound):
    batch = 500

    def step(tree, key):
        index_key, priority_key = jax.random.split(key)
        indices = jax.random.randint(index_key, (batch,), 0, capacity)
        priorities = jnp.exp(3 * jax.random.normal(priority_key, (batch,)))
        return sum_tree.set(tree, indices, priorities), None

    keys = jax.random.split(jax.random.key(0), updates // batch)
    tree, _ = jax.jit(lambda tree: jax.lax.scan(step, tree, keys))(sum_tree.init(capacity))
    exact = np.asarray(tree.leaves, np.float64).sum()
    assert abs(float(sum_tree.total(tree)) - exact) / exact <= bound


def test_vmap_equals_single_trees():
    rng = np.random.default_rng(0)
    indices, values = rng.integers(100, size=(4, 30)), rng.random((4, 30), np.float32)
    tree = sum_tree.init(100)
    trees = jax.jit(jax.vmap(sum_tree.set, (None, 0, 0)))(tree, indices, values)
    queries = rng.random((4, 20), np.float32) * 5
    batched, _ = jax.jit(jax.vmap(sum_tree.find))(trees, queries)
    for i in range(4):
        single = set_leaves(tree, indices[i], values[i])
        np.testing.assert_array_equal(batched[i], found(single, queries[i]))


def test_set_and_find_compute_no_array_of_the_size_of_the_tree():
    """Both take O(log capacity), apart from scatters, which are done in place."""
    capacity, batch = 2**20, 32

    def cycle(tree, queries):
        indices, priorities = sum_tree.find(tree, queries)
        return sum_tree.set(tree, indices, priorities + 1)

    program = jax.make_jaxpr(cycle)(sum_tree.init(capacity), jnp.zeros(batch))
    large = [
        equation.primitive.name for equation in equations(program.jaxpr)
        if any(getattr(x.aval, "size", 0) > 8 * 2 * 8 * batch for x in equation.outvars)
    ]  # fmt: skip
    assert set(large) <= {"scatter", "scatter_min", "scatter-min", "jit", "pjit"}, large


@pytest.mark.parametrize(("sizes", "message"), [((0,), "`capacity` is 0"), ((4, 1), "`branching`")])
def test_impossible_sizes_are_rejected(sizes, message):
    with pytest.raises(ValueError, match=message):
        sum_tree.init(*sizes)
