"""Running moments, and shuffles that cost little."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.types import Array, Key, PyTree, identity


class Moments(NamedTuple):
    """Mean and (population) variance of all that was seen, and how much that was."""

    mean: PyTree
    variance: PyTree
    num_samples: Array


def init_moments(shape: tuple[int, ...]) -> Moments:
    """Nothing seen yet: mean 0 and variance 1, so that normalising changes nothing."""
    return Moments(jnp.zeros(shape), jnp.ones(shape), jnp.float32(0.0))


def update_moments(
    moments: Moments, batch: Array, average: Callable[[PyTree], PyTree] = identity
) -> Moments:
    """Merges a batch into running moments (Chan, Golub and LeVeque 1979, eq. 2.1).

    Args:
      batch: `[..., *shape]`, all leading axes are samples.
      average: over workers, each of which holds a batch of the same size; all of them get
        the same result, the moments of everything that they saw together.
    """
    samples = batch.reshape(-1, *moments.mean.shape)
    size = jnp.float32(samples.shape[0])
    mean = average(samples.mean(axis=0))
    variance = average(jnp.square(samples - mean[None]).mean(axis=0))
    total = moments.num_samples + size
    delta = mean - moments.mean
    merged = (
        moments.variance * (moments.num_samples / total)
        + variance * (size / total)
        + jnp.square(delta) * (moments.num_samples / total) * (size / total)
    )
    return Moments(moments.mean + delta * (size / total), merged, total)


def standardize(x: Array, moments: Moments, eps: float = 1e-8) -> Array:
    """`(x - mean) / sqrt(variance + eps)`: 0, not NaN, where all that was seen is equal."""
    mean, variance = (jnp.broadcast_to(m, x.shape) for m in (moments.mean, moments.variance))
    return (x - mean) / jnp.sqrt(variance + eps)


def permutations(key: Key, num: int, size: int) -> Array:
    """`num` independent shuffles of `0 .. size - 1`. `-> [num, size]` int32.

    For small sizes one sort of single words, random above and index below, which is three times
    as fast on a CPU as `jax.random.permutation`; words that tie in their random part (a chance of
    size^2 / 2^33 x size a pair at most) keep their order.
    """
    index_bits = max(size - 1, 1).bit_length()
    if index_bits > 13:
        keys = jax.random.split(key, num)
        return jax.vmap(lambda key: jax.random.permutation(key, size))(keys).astype(jnp.int32)
    mask = jnp.uint32((1 << index_bits) - 1)
    words = jax.random.bits(key, (num, size), jnp.uint32) & ~mask
    words = jnp.sort(words | jnp.arange(size, dtype=jnp.uint32)[None], axis=-1)
    return (words & mask).astype(jnp.int32)
