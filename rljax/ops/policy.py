"""What policy-gradient objectives are made of."""

import chex
import jax.numpy as jnp

from rljax.types import Array


def clipped_surrogate(ratio: Array, advantage: Array, clip_eps: float | Array) -> Array:
    """PPO's clipped objective, https://arxiv.org/abs/1707.06347 (eq. 7), to be maximised.

        min(r A, clip(r, 1 - eps, 1 + eps) A)

    `[...], [...] -> [...]`.
    """
    chex.assert_equal_shape([ratio, advantage])
    clipped = jnp.clip(ratio, 1.0 - clip_eps, 1.0 + clip_eps)
    return jnp.minimum(ratio * advantage, clipped * advantage)


def adapted_beta(
    beta: Array, kl: Array, target_kl: float | Array, low: float = 1e-4, high: float = 1e4
) -> Array:
    """PPO's rule for the weight of the KL penalty, https://arxiv.org/abs/1707.06347 (section 4).

    Halved where KL < target / 1.5, doubled where KL > 1.5 target, once a policy update. The
    paper has no bounds; without them beta reaches 0 or infinity and never comes back.
    """
    beta = jnp.where(
        kl > 1.5 * target_kl, 2.0 * beta, jnp.where(kl < target_kl / 1.5, 0.5 * beta, beta)
    )
    return jnp.clip(beta, low, high)


def clipped_value_loss(
    value: Array, old_value: Array, target: Array, clip_eps: float | Array
) -> Array:
    """Half the larger of the squared errors of the value and of the value held near its old one.

    The optional value clipping of the baselines implementation of PPO; not in the paper.
    `[...] x 3 -> [...]`.
    """
    chex.assert_equal_shape([value, old_value, target])
    held = old_value + jnp.clip(value - old_value, -clip_eps, clip_eps)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(held - target))
