"""Distributional reinforcement learning: the categorical projection, and quantile regression."""

import chex
import jax
import jax.numpy as jnp

from rljax.ops import platform
from rljax.types import Array


def categorical_projection(
    probabilities: Array, reward: Array, discount: Array, support: Array
) -> Array:
    """Projects the distribution of `r + discount Z` onto the support of Z.

        m_i = sum_j p_j max(0, 1 - |clip(r + discount z_j) - z_i| / spacing)

    https://arxiv.org/abs/1707.06887 (eq. 7). An atom that coincides with another keeps its mass.

    Args:
      probabilities: p, the distribution of Z at the next state, `[N, K]`.
      reward: r, `[N]`.
      discount: `[N]`; 0 where the next state is terminal.
      support: atoms z, `[K]`, evenly spaced, K at least 2.

    Returns:
      Probabilities m, `[N, K]`.

    Example:
      >>> support, p = jnp.array([-1.0, 0.0, 1.0]), jnp.array([[0.0, 0.5, 0.5]])
      >>> categorical_projection(p, jnp.array([0.5]), jnp.array([0.5]), support).tolist()
      [[0.0, 0.25, 0.75]]
    """
    chex.assert_rank([probabilities, reward, discount, support], [2, 1, 1, 1])
    chex.assert_type([probabilities, reward, discount, support], float)
    chex.assert_equal_shape([reward, discount])
    chex.assert_shape(probabilities, (*reward.shape, *support.shape))
    low, high = support[0], support[-1]
    spacing = (high - low) / (support.size - 1)
    shifted = jnp.clip(reward[:, None] + discount[:, None] * support[None], low, high)
    position, to = (shifted - low) / spacing, jnp.arange(support.size, dtype=jnp.float32)

    def mass(position, probability):
        """The part of m that comes from one atom, `[N, K]`."""
        distance = jnp.abs(position[:, None] - to[None])
        return jnp.maximum(1.0 - distance, 0.0) * probability[:, None]

    atoms = position.T, probabilities.T
    if platform.is_gpu():
        return jax.vmap(mass)(*atoms).sum(axis=0)
    # on a CPU, a sum over the last or first axis of [K, N, K] takes ten times as long
    return jax.lax.scan(
        lambda m, atom: (m + mass(*atom), None), jnp.zeros_like(probabilities), atoms
    )[0]


def categorical_loss(logits: Array, target: Array) -> Array:
    """The cross-entropy `-sum_i m_i log p_i`.

    Args:
      logits: logits of p, `[N, K]`.
      target: probabilities m, `[N, K]`.

    Returns:
      `[N]`.
    """
    chex.assert_rank([logits, target], 2)
    chex.assert_equal_shape([logits, target])
    chex.assert_type([logits, target], float)
    return -(target * jax.nn.log_softmax(logits, axis=-1)).sum(axis=-1)


def quantile_midpoints(num_quantiles: int) -> Array:
    """The quantile levels `tau_i = (2 i + 1) / (2 K)`, https://arxiv.org/abs/1710.10044 (lemma 2).

    Example:
      >>> quantile_midpoints(2).tolist()
      [0.25, 0.75]
    """
    return (jnp.arange(num_quantiles, dtype=jnp.float32) + 0.5) / num_quantiles


def quantile_huber_loss(
    quantiles: Array, target: Array, midpoints: Array, kappa: float | Array = 1.0
) -> Array:
    """The quantile Huber loss, https://arxiv.org/abs/1710.10044 (eq. 10, algorithm 1).

        sum_i mean_j |tau_i - 1{u_ij < 0}| L(u_ij) / kappa,  u_ij = target_j - quantile_i

    L(u) is `u^2 / 2` where `|u| <= kappa`, else `kappa (|u| - kappa / 2)`. kappa 0 is quantile
    regression, with `|u|` for `L(u) / kappa`.

    Args:
      quantiles: `[N, K]`.
      target: samples of the target distribution, `[N, K']`.
      midpoints: quantile levels tau, `[K]`.
      kappa: threshold of the Huber loss, not negative.

    Returns:
      `[N]`.

    Example:
      >>> quantile_huber_loss(jnp.array([[0.0]]), jnp.array([[3.0]]), jnp.array([0.5])).tolist()
      [1.25]
    """
    chex.assert_rank([quantiles, target, midpoints], [2, 2, 1])
    chex.assert_equal_shape_prefix([quantiles, target], 1)
    chex.assert_axis_dimension(quantiles, 1, midpoints.size)
    chex.assert_type([quantiles, target, midpoints], float)
    error = target[:, None, :] - quantiles[:, :, None]  # [N, K, K']
    size = jnp.abs(error)
    clipped = jnp.minimum(size, kappa)
    divisor = jnp.where(kappa > 0.0, kappa, 1.0)
    loss = jnp.where(kappa > 0.0, clipped * (size - 0.5 * clipped) / divisor, size)
    weight = jnp.abs(midpoints[None, :, None] - (error < 0.0))
    return (weight * loss).mean(axis=-1).sum(axis=-1)
