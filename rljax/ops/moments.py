"""Running mean and variance."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from rljax.types import Array, PyTree, identity


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
