"""Terms of policy-gradient objectives: clipped ratio, KL coefficient, clipped value loss."""

import chex
import jax.numpy as jnp

from rljax.types import Array


def clipped_surrogate(ratio: Array, advantage: Array, clip_eps: float | Array) -> Array:
    """The clipped objective of PPO, https://arxiv.org/abs/1707.06347 (eq. 7), to be maximized.

        min(r A, clip(r, 1 - eps, 1 + eps) A)

    Args:
      ratio: probability ratio r = pi(a | s) / pi_old(a | s), `[...]`.
      advantage: A, `[...]`.
      clip_eps: clipping epsilon.

    Returns:
      The objective of each sample, `[...]`.

    Example:
      >>> clipped_surrogate(jnp.array([0.5, 1.0, 2.0]), jnp.ones(3), 0.25)
      Array([0.5 , 1.  , 1.25], dtype=float32)
    """
    chex.assert_equal_shape([ratio, advantage])
    chex.assert_type([ratio, advantage], float)
    clipped_ratio = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)
    return jnp.minimum(ratio * advantage, clipped_ratio * advantage)


def adapted_beta(
    beta: Array, kl: Array, target_kl: float | Array, low: float = 1e-4, high: float = 1e4
) -> Array:
    """Adapts the coefficient of PPO's KL penalty, https://arxiv.org/abs/1707.06347 (section 4).

    Beta is halved where KL < target / 1.5 and doubled where KL > 1.5 target, once per update.
    Differs from the paper: beta is bounded, as it could not return from 0 or infinity.

    Args:
      beta: coefficient of the penalty, `[]`.
      kl: mean KL(old || new) after the update, `[]`.
      target_kl: target of the KL divergence.
      low, high: bounds of beta.

    Returns:
      The new coefficient, `[]`.

    Example:
      >>> adapted_beta(jnp.float32(1.0), kl=jnp.float32(0.1), target_kl=0.01)
      Array(2., dtype=float32)
    """
    chex.assert_rank([beta, kl], 0)
    chex.assert_type([beta, kl], float)
    beta = jnp.where(
        kl > 1.5 * target_kl, 2.0 * beta, jnp.where(kl < target_kl / 1.5, 0.5 * beta, beta)
    )
    return jnp.clip(beta, low, high)


def clipped_value_loss(
    value: Array, old_value: Array, target: Array, clip_eps: float | Array
) -> Array:
    """The clipped value loss of the OpenAI baselines implementation of PPO (not in the paper).

        max((v - target)^2, (v_old + clip(v - v_old, -eps, eps) - target)^2) / 2

    Args:
      value, old_value, target: `[...]`.
      clip_eps: largest change of the value that is followed.

    Returns:
      The loss of each sample, `[...]`.

    Example:
      >>> clipped_value_loss(jnp.array([2.0]), jnp.array([1.0]), jnp.array([3.0]), 0.5)
      Array([1.125], dtype=float32)
    """
    chex.assert_equal_shape([value, old_value, target])
    chex.assert_type([value, old_value, target], float)
    clipped = old_value + jnp.clip(value - old_value, -clip_eps, clip_eps)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(clipped - target))
