"""V-trace: the n-step returns of one policy, from the experience of another."""

import chex
import jax
import jax.numpy as jnp

from rljax.types import Array


def vtrace(
    ratio: Array, reward: Array, value: Array, next_value: Array, terminated: Array,
    truncated: Array, gamma: float | Array, rho_bar: float | Array = 1.0,
    c_bar: float | Array = 1.0,
) -> tuple[Array, Array]:  # fmt: skip
    """V-trace, https://arxiv.org/abs/1802.01561 (eq. 1 and section 4.2).

        delta_t = rho_t (r_{t+1} + gamma (1 - terminated_t) v(s_{t+1}) - v(s_t))
        vs_t    = v(s_t) + delta_t + gamma c_t (1 - done_t) (vs_{t+1} - v(s_{t+1}))
        A_t     = rho_t (r_{t+1} + gamma (1 - terminated_t) vs_{t+1} - v(s_t))

    with rho_t = min(rho_bar, ratio_t), c_t = min(c_bar, ratio_t), and v(s_{t+1}) in the place of
    vs_{t+1} where an episode was cut and at the last step. With all ratios 1, vs is the n-step
    return, and A that minus the value.

    Args:
      ratio: `[T, B]` (or `[T]`), pi(a | s) / mu(a | s), mu being the policy that acted.
      reward, value, next_value, terminated, truncated: the same shape; `next_value` is the value
        of the observation before any reset.
    Returns:
      Advantages and value targets, the shape of `reward` each. No gradient goes through them.
    """
    chex.assert_equal_shape([ratio, reward, value, next_value, terminated, truncated])
    ratio, value, next_value = jax.lax.stop_gradient((ratio, value, next_value))
    rho, c = jnp.minimum(rho_bar, ratio), jnp.minimum(c_bar, ratio)
    discount = gamma * jnp.where(terminated, 0.0, 1.0)
    done = terminated | truncated
    delta = rho * (reward + discount * next_value - value)
    decay = gamma * c * jnp.where(done, 0.0, 1.0)

    def backward(correction, step):
        delta, decay = step
        correction = delta + decay * correction
        return correction, correction

    _, correction = jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)
    target = value + correction
    following = jnp.where(done, next_value, jnp.concatenate([target[1:], next_value[-1:]]))
    return rho * (reward + discount * following - value), target
