"""Values as categorical distributions over a support of transformed values, as in MuZero.

Schrittwieser et al. 2020, https://arxiv.org/abs/1911.08265 (appendix F): large and small values
are compressed by an invertible transform h, and a network learns a distribution over the integers
-S, ..., S by cross-entropy, which does not depend on the scale of the rewards.
"""

import chex
import jax
import jax.numpy as jnp

from rljax.types import Array

EPSILON = 1e-3  # keeps the inverse of the transform Lipschitz continuous


def signed_hyperbolic(x: Array, epsilon: float = EPSILON) -> Array:
    """The transform `h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x`, `[...] -> [...]`.

    Pohlen et al. 2018, https://arxiv.org/abs/1805.11593 (section 3.2).

    Example:
      >>> signed_hyperbolic(jnp.array([-3.0, 0.0, 3.0]), epsilon=0.0).tolist()
      [-1.0, 0.0, 1.0]
    """
    chex.assert_type(x, float)
    return x / (jnp.sqrt(jnp.abs(x) + 1.0) + 1.0) + epsilon * x  # equal, and exact near 0


def signed_parabolic(x: Array, epsilon: float = EPSILON) -> Array:
    """The inverse of `signed_hyperbolic`, for a positive `epsilon`, `[...] -> [...]`.

        h^-1(x) = x (s + 1) / (1 + epsilon (s + 1)),
        s = (sqrt(1 + 4 epsilon (|x| + 1 + epsilon)) - 1) / (2 epsilon)

    Pohlen et al. 2018 (proposition A.2), who write it as `sign(x) (s^2 - 1)`. This form has no
    differences of nearly equal numbers, in which float32 loses its digits.

    Example:
      >>> signed_parabolic(signed_hyperbolic(jnp.array([7.0]))).round(2)
      Array([7.], dtype=float32)
    """
    chex.assert_type(x, float)
    size = jnp.abs(x) + 1.0 + epsilon
    s = 2.0 * size / (jnp.sqrt(1.0 + 4.0 * epsilon * size) + 1.0)
    return x * (s + 1.0) / (1.0 + epsilon * (s + 1.0))


def two_hot(x: Array, support_size: int) -> Array:
    """Returns distributions over the integers -S, ..., S with mean x, `[...] -> [..., 2 S + 1]`.

    The probability is divided between the two neighbors of x; x outside the support is clipped.
    Schrittwieser et al. 2020 (appendix F).

    Args:
      x: numbers `[...]`.
      support_size: S, at least 1.

    Example:
      >>> two_hot(jnp.array([0.25]), support_size=1).tolist()
      [[0.0, 0.75, 0.25]]
    """
    chex.assert_type(x, float)
    support = jnp.arange(-support_size, support_size + 1, dtype=jnp.float32)
    x = jnp.clip(x, -support_size, support_size)
    distance = jnp.abs(x[..., None] - support.reshape(*(1,) * x.ndim, -1))
    return jnp.maximum(1.0 - distance, 0.0)


def to_support(x: Array, support_size: int) -> Array:
    """Returns values as distributions over transformed values, `[...] -> [..., 2 S + 1]`."""
    return two_hot(signed_hyperbolic(x), support_size)


def from_support(logits: Array) -> Array:
    """Returns the values that distributions over transformed values stand for.

    Args:
      logits: logits `[..., 2 S + 1]` of the integers -S, ..., S.

    Returns:
      `h^-1` of the means of the distributions, `[...]`.

    Example:
      >>> from_support(jnp.log(to_support(jnp.array([-5.0, 0.5]), 3))).round(3).tolist()
      [-5.0, 0.5]
    """
    chex.assert_type(logits, float)
    support_size = logits.shape[-1] // 2
    support = jnp.arange(-support_size, support_size + 1, dtype=jnp.float32)
    return signed_parabolic(jax.nn.softmax(logits, axis=-1) @ support)
