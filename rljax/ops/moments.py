"""Running mean and variance."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax.numpy as jnp

from rljax.types import Array, PyTree, identity


class Moments(NamedTuple):
    """Mean and variance of a stream of samples.

    Attributes:
      mean: `[*shape]`.
      variance: population variance, `[*shape]`.
      num_samples: number of samples, float32 `[]`.
    """

    mean: Array
    variance: Array
    num_samples: Array


def init_moments(shape: tuple[int, ...], scale: float = 1.0) -> Moments:
    """Returns the moments of no samples: mean 0 and standard deviation `scale`, `[*shape]`."""
    variance = jnp.full(shape, scale**2, jnp.float32)
    return Moments(jnp.zeros(shape, jnp.float32), variance, jnp.float32(0.0))


def update_moments(
    moments: Moments, batch: Array, average: Callable[[PyTree], PyTree] = identity
) -> Moments:
    """Merges a batch into running moments (Chan, Golub and LeVeque 1979, eq. 2.1).

    Args:
      moments: moments of the samples so far.
      batch: `[..., *shape]`, any number dtype; all leading axes are samples.
      average: mean over workers, whose batches have the same size; all workers get the moments of
        all samples.

    Returns:
      The moments of all samples.

    Example:
      >>> moments = update_moments(init_moments(()), jnp.array([1.0, 3.0]))
      >>> moments.mean, moments.variance, moments.num_samples
      (Array(2., dtype=float32), Array(1., dtype=float32), Array(2., dtype=float32))
    """
    _check_shapes(batch, moments)
    samples = batch.reshape(-1, *moments.mean.shape)
    batch_size = jnp.float32(samples.shape[0])
    mean = average(samples.mean(axis=0))
    variance = average(jnp.square(samples - mean[None]).mean(axis=0))
    total = moments.num_samples + batch_size
    delta = mean - moments.mean
    merged = (
        moments.variance * (moments.num_samples / total)
        + variance * (batch_size / total)
        + jnp.square(delta) * (moments.num_samples / total) * (batch_size / total)
    )
    return Moments(moments.mean + delta * (batch_size / total), merged, total)


def standardize(x: Array, moments: Moments, eps: float = 1e-8) -> Array:
    """Returns `(x - mean) / sqrt(variance + eps)`, `[..., *shape] -> [..., *shape]`.

    The result is 0, not NaN, where all samples were equal.

    Example:
      >>> moments = Moments(jnp.float32(2.0), jnp.float32(4.0), jnp.float32(10.0))
      >>> standardize(jnp.array([0.0, 2.0, 4.0]), moments)
      Array([-1.,  0.,  1.], dtype=float32)
    """
    _check_shapes(x, moments)
    mean, variance = (jnp.broadcast_to(m, x.shape) for m in (moments.mean, moments.variance))
    return (x - mean) / jnp.sqrt(variance + eps)


def _check_shapes(x: Array, moments: Moments) -> None:
    chex.assert_equal_shape([moments.mean, moments.variance])
    chex.assert_type([moments.mean, moments.variance], float)
    chex.assert_shape(x, (..., *moments.mean.shape))
