"""The functions of `rljax.ops.random` against those of `jax.random`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.ops import random

SHAPES = [(), (1,), (7,), (3, 5), (2, 100, 3)]
FUNCTIONS = ["bits", "uniform", "normal", "gumbel"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_bits(name, shape):
    for seed in (0, 1, 2**31):
        key = jax.random.key(seed)
        given = getattr(random, name)(key, shape)
        expected = getattr(jax.random, name)(key, shape)
        assert given.dtype == expected.dtype
        np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("num", [1, 2, 5, (3, 2)], ids=str)
def test_same_keys(num):
    key = jax.random.key(3)
    given, expected = random.split(key, num), jax.random.split(key, num)
    assert given.dtype == expected.dtype and given.shape == expected.shape
    np.testing.assert_array_equal(jax.random.key_data(given), jax.random.key_data(expected))


def test_bounds():
    key = jax.random.key(4)
    expected = jax.random.uniform(key, (50,), minval=-2.0, maxval=3.0)
    np.testing.assert_array_equal(random.uniform(key, (50,), minval=-2.0, maxval=3.0), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jit_and_vmap(name):
    keys = jax.random.split(jax.random.key(5), 3)
    given = jax.jit(jax.vmap(lambda key: getattr(random, name)(random.split(key)[1], (4,))))(keys)
    for row, key in zip(given, keys, strict=True):
        expected = getattr(jax.random, name)(jax.random.split(key)[1], (4,))
        np.testing.assert_allclose(row, expected, rtol=1e-6)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_other_implementations(impl):
    key = jax.random.key(6, impl=impl)
    np.testing.assert_array_equal(random.normal(key, (9,)), jax.random.normal(key, (9,)))
    assert random.split(key).dtype == jax.random.split(key).dtype


def test_keys_can_be_used_by_jax_random():
    """`poisson` refuses keys of other implementations than Threefry."""
    key = random.split(jax.random.key(7))[0]
    assert jax.random.poisson(key, 3.0, (2,)).shape == (2,)


def test_no_kernel_holds_two_hashes():
    """LLVM's time is exponential in the length of a chain of them (see `random._split`)."""

    def draw(key):
        return random.normal(random.split(random.split(key, 3)[1])[0], (8, 256))

    # at level 0 loops are not vectorized, so that this test fails instead of compiling forever
    options = {"xla_backend_optimization_level": 0}
    program = jax.jit(draw).lower(jax.random.key(9)).compile(compiler_options=options).as_text()
    shifts = [kernel.count(" shift-left(") for kernel in program.split("\n\n")]
    assert 1 <= max(shifts) <= 20  # one per round


def test_older_numbering_of_elements():
    with jax.threefry_partitionable(False):
        key = jax.random.key(8)
        np.testing.assert_array_equal(random.bits(key, (6,)), jax.random.bits(key, (6,)))
        assert jnp.unique(random.bits(key, (6,))).size == 6


def test_every_seed_has_its_own_key():
    """Also those that are equal modulo 2^32, with and without 64-bit types."""
    seeds = [word + 2**32 * high for high in (0, 1, 2, 2**31 - 1) for word in (0, 1, 2**32 - 1)]

    def keys():
        return [tuple(jax.random.key_data(random.seed_key(seed)).tolist()) for seed in seeds]

    small = [tuple(jax.random.key_data(jax.random.key(seed)).tolist()) for seed in seeds[:3]]
    assert keys()[:3] == small and len(set(keys())) == len(seeds)
    with jax.enable_x64(True):
        wide = keys()
    assert wide == keys()


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 10**30, 0.5])
def test_other_seeds_are_refused(seed):
    with pytest.raises(ValueError, match=rf"`seed` is {seed}, but it must be (at|an integer)"):
        random.checked_seed(seed)
