"""The random numbers of `jax.random`, bit by bit, from fewer kernels on a CPU.

The hash of `jax.random` is Threefry-2x32 with 20 rounds (Salmon et al. 2011,
https://doi.org/10.1145/2063384.2063405). On a CPU, JAX compiles it to a loop with several small
kernels per iteration. Here it is straight-line code, which XLA compiles to one kernel. That also
keeps the number of kernels low that are ready at the same time; where there are more than eight,
XLA divides them between threads, which takes longer than it saves if they are small.

A split is a kernel of its own. Otherwise XLA fuses the hashes of a chain of splits with the numbers
drawn at its end, and jaxlib 0.11 does not finish compiling a kernel of four hashes.

On other devices, and for keys of other implementations, the functions are those of `jax.random`.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import random as extend

from rljax.config import at_least
from rljax.types import Array, Key

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
MAX_SEED = 2**63 - 1  # the largest integer of TOML


def checked_seed(seed: Any) -> int:
    """Returns the option `seed` as an integer.

    Raises:
      ValueError: it is not an integer from 0 to `MAX_SEED`.
    """
    return at_least("seed", seed, 0, MAX_SEED)


def seed_key(seed: int) -> Key:
    """Returns the random key of a seed from 0 to `MAX_SEED`.

    `jax.random.key` takes seeds modulo 2^32 (without 64-bit types), so the high word of a larger
    seed is folded in.

    Example:
      >>> keys = [seed_key(seed) for seed in (7, 2**32 + 7)]
      >>> [bool(key == jax.random.key(7)) for key in keys]
      [True, False]
    """
    high, low = divmod(seed, 2**32)
    key = jax.random.key(low)
    return jax.random.fold_in(key, high) if high else key


def split(key: Key, num: int | tuple[int, ...] = 2) -> Key:
    """Returns `num` keys, as `jax.random.split`.

    Example:
      >>> bool((split(jax.random.key(0), 3) == jax.random.split(jax.random.key(0), 3)).all())
      True
    """
    keys = jax.random.split(_unrolled(key), num)
    return jax.random.wrap_key_data(jax.random.key_data(keys), impl=jax.random.key_impl(key))


def bits(key: Key, shape: Sequence[int]) -> Array:
    """Returns random bits, uint32, as `jax.random.bits`."""
    return jax.random.bits(_unrolled(key), tuple(shape))


def uniform(key: Key, shape: Sequence[int], minval: Any = 0.0, maxval: Any = 1.0) -> Array:
    """Returns samples from [minval, maxval), as `jax.random.uniform`."""
    return jax.random.uniform(_unrolled(key), tuple(shape), minval=minval, maxval=maxval)


def normal(key: Key, shape: Sequence[int]) -> Array:
    """Returns standard normal samples, as `jax.random.normal`."""
    return jax.random.normal(_unrolled(key), tuple(shape))


def gumbel(key: Key, shape: Sequence[int]) -> Array:
    """Returns samples of the standard Gumbel distribution, as `jax.random.gumbel`."""
    return jax.random.gumbel(_unrolled(key), tuple(shape))


def _unrolled(key: Key) -> Key:
    """Returns a key of the same random numbers whose hash is straight-line code, on a CPU."""
    straight = (
        jax.default_backend() == "cpu"
        and str(jax.random.key_impl(key)) == "threefry2x32"
        and getattr(jax.config, "jax_threefry_partitionable", True)  # else other numbers
    )
    if not straight:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_IMPLEMENTATION)


def _hashed_indices(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Threefry-2x32 of the index of each element of an array of fewer than 2^32 elements."""
    size = math.prod(shape)
    keys = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY)
    x, y = keys[0], jnp.arange(size, dtype=jnp.uint32).reshape(shape) + keys[1]
    for i in range(5):
        for rotation in ROTATIONS[i % 2]:
            x = x + y
            y = x ^ ((y << jnp.uint32(rotation)) | (y >> jnp.uint32(32 - rotation)))
        x, y = x + keys[(i + 1) % 3], y + keys[(i + 2) % 3] + jnp.uint32(i + 1)
    return x, y


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    # To see if a value is needed in one lane only, LLVM's loop vectorizer follows every path of its
    # uses. Each of the 20 rounds multiplies their number, so chains of hashes must not be fused.
    return jax.lax.optimization_barrier(jnp.stack(_hashed_indices(key, shape), axis=-1))


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    if bit_width != 32 or math.prod(shape) >= 2**32:
        return extend.threefry_prng_impl.random_bits(key, bit_width, shape)
    x, y = _hashed_indices(key, shape)
    return x ^ y


_IMPLEMENTATION = extend.define_prng_impl(
    key_shape=(2,), seed=extend.threefry_prng_impl.seed, split=_split, random_bits=_random_bits,
    fold_in=extend.threefry_prng_impl.fold_in, name="unrolled_threefry2x32", tag="unrolled",
)  # fmt: skip
