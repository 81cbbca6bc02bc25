"""Learning of the distribution of returns: projections and losses."""

import chex
import jax
import jax.numpy as jnp

from rljax.types import Array


def categorical_projection(
    probabilities: Array, reward: Array, discount: Array, support: Array
) -> Array:
    """The distribution of `r + discount Z` brought back onto the support of Z.

        m_i = sum_j p_j max(0, 1 - |clip(r + discount z_j) - z_i| / spacing)

    https://arxiv.org/abs/1707.06887 (eq. 7). An atom that falls on another keeps all its mass.

    Args:
      probabilities: `[N, K]`, of Z.
      reward, discount: `[N]`; discount 0 where a state is terminal.
      support: `[K]`, evenly spaced, K at least 2.
    Returns: `[N, K]`.
    """
    chex.assert_rank([probabilities, reward, discount, support], [2, 1, 1, 1])
    low, high = support[0], support[-1]
    spacing = (high - low) / (support.size - 1)
    moved = jnp.clip(reward[:, None] + discount[:, None] * support[None], low, high)
    away = jnp.abs(moved[:, None, :] - support[None, :, None]) / spacing  # [N, to, from]
    return (jnp.maximum(1.0 - away, 0.0) * probabilities[:, None, :]).sum(axis=-1)


def categorical_loss(logits: Array, target: Array) -> Array:
    """The cross-entropy `-sum_i m_i log p_i`, `[N, K], [N, K] -> [N]`."""
    chex.assert_equal_shape([logits, target])
    return -(target * jax.nn.log_softmax(logits, axis=-1)).sum(axis=-1)


def quantile_midpoints(num_quantiles: int) -> Array:
    """`tau_i = (2 i + 1) / 2 N`, `[N]`: https://arxiv.org/abs/1710.10044 (lemma 2)."""
    return (jnp.arange(num_quantiles) + 0.5) / num_quantiles


def quantile_huber_loss(
    quantiles: Array, target: Array, midpoints: Array, kappa: float | Array = 1.0
) -> Array:
    """The quantile Huber loss, https://arxiv.org/abs/1710.10044 (eq. 10, algorithm 1).

        sum_i mean_j |tau_i - 1{u_ij < 0}| L(u_ij) / kappa,  u_ij = target_j - quantile_i

    with L(u) half the square up to kappa and linear beyond; kappa 0 is quantile regression.

    Args:
      quantiles: `[N, K]`; target: `[N, K']`; midpoints: `[K]`.
    Returns: `[N]`.
    """
    chex.assert_rank([quantiles, target, midpoints], [2, 2, 1])
    error = target[:, None, :] - quantiles[:, :, None]  # [N, K, K']
    size = jnp.abs(error)
    within = jnp.minimum(size, kappa)
    positive = jnp.where(kappa > 0.0, kappa, 1.0)
    loss = jnp.where(kappa > 0.0, within * (size - 0.5 * within) / positive, size)
    weight = jnp.abs(midpoints[None, :, None] - (error < 0.0))
    return (weight * loss).mean(axis=-1).sum(axis=-1)
