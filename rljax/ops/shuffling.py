"""Random permutations for minibatches."""

import chex
import jax
import jax.numpy as jnp

from rljax.ops import random
from rljax.types import Array, Key

MAX_SORTED = 8192
ROUNDS = 12  # with 8, pairs of indices are not equally likely for sizes below 64
# of a 32-bit integer hash, https://github.com/skeeto/hash-prospector
MULTIPLIERS = 0x7FEB352D, 0x846CA68B


def permutations(key: Key, num: int, size: int) -> Array:
    """Returns `num` independent random permutations of `0 .. size - 1`, `[num, size]` int32.

    Up to 8192 elements, one sort of 32-bit words with random high bits and the index in the low
    bits: three times as fast on a CPU as `jax.random.permutation`. Two words with equal random
    bits, which has probability below size / 2^31, keep their order. Above, if the size is a power
    of two, `feistel_permutations`, in less than a hundredth of the time of
    `jax.random.permutation`.

    Args:
      key: random key.
      num: number of permutations, static.
      size: number of elements, static.

    Example:
      >>> rows = permutations(jax.random.key(0), num=2, size=5)
      >>> jnp.sort(rows, axis=1)
      Array([[0, 1, 2, 3, 4],
             [0, 1, 2, 3, 4]], dtype=int32)
    """
    chex.assert_scalar_positive(num)
    chex.assert_scalar_positive(size)
    if size > MAX_SORTED:
        if size & (size - 1) == 0:
            return feistel_permutations(key, num, size)
        keys = random.split(key, num)
        return jax.vmap(lambda key: jax.random.permutation(key, size))(keys).astype(jnp.int32)
    index_bits = max(size - 1, 1).bit_length()
    mask = jnp.uint32((1 << index_bits) - 1)
    words = random.bits(key, (num, size)) & ~mask
    words = jnp.sort(words | jnp.arange(size, dtype=jnp.uint32)[None], axis=-1)
    return (words & mask).astype(jnp.int32)


def feistel_permutations(key: Key, num: int, size: int) -> Array:
    """Returns `num` pseudorandom permutations of `0 .. size - 1`, a power of two above 2.

    An index is split into its high and its low bits. In each of 12 rounds one half is changed by an
    exclusive or with a keyed hash of the other, which can be undone, so the indices stay different
    (Luby and Rackoff 1988, https://doi.org/10.1137/0217022). Nothing is sorted.

    Args:
      key: random key.
      num: number of permutations, static.
      size: number of elements, static.

    Example:
      >>> jnp.sort(feistel_permutations(jax.random.key(0), num=1, size=8))
      Array([[0, 1, 2, 3, 4, 5, 6, 7]], dtype=int32)
    """
    low_bits = (size.bit_length() - 1) // 2
    low_mask, high_mask = (1 << low_bits) - 1, size // (1 << low_bits) - 1
    round_keys = random.bits(key, (ROUNDS, num, 1))
    index = jnp.arange(size, dtype=jnp.uint32)[None]
    high, low = index >> low_bits, index & jnp.uint32(low_mask)
    for number in range(ROUNDS):
        if number % 2:
            low = low ^ (_hash(high, round_keys[number]) & jnp.uint32(low_mask))
        else:
            high = high ^ (_hash(low, round_keys[number]) & jnp.uint32(high_mask))
    return ((high << low_bits) | low).astype(jnp.int32)


def _hash(x: Array, key: Array) -> Array:
    """Returns 32 bits that depend on all bits of `x` and of `key`, uint32."""
    x = x ^ key
    for multiplier in MULTIPLIERS:
        x = (x ^ (x >> 16)) * jnp.uint32(multiplier)
    return x ^ (x >> 16)
