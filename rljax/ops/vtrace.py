"""V-trace: off-policy n-step returns with truncated importance sampling."""

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

    with rho_t = min(rho_bar, ratio_t) and c_t = min(c_bar, ratio_t). At a truncation and at the
    last step, A_t uses v(s_{t+1}) instead of vs_{t+1}. With all ratios 1, vs is the n-step return
    and A is the n-step return minus the value.

    Args:
      ratio: pi(a | s) / mu(a | s), `[T, B]` (or `[T]`); mu is the behavior policy.
      reward, value, next_value: the same shape; `next_value` is the value before any reset.
      terminated, truncated: the same shape, bool.
      gamma: discount in [0, 1].
      rho_bar: truncation of the ratio in the TD error.
      c_bar: truncation of the ratio in the trace.

    Returns:
      Advantages A and value targets vs, both of the shape of `reward`, without gradients.

    Example:
      >>> never, ratio = jnp.zeros(2, bool), jnp.array([1.0, 0.5])
      >>> vtrace(ratio, jnp.ones(2), jnp.zeros(2), jnp.zeros(2), never, never, 0.5)[1]
      Array([1.25, 0.5 ], dtype=float32)
    """
    chex.assert_equal_shape([ratio, reward, value, next_value, terminated, truncated])
    chex.assert_rank(reward, {1, 2})
    chex.assert_type([ratio, reward, value, next_value], float)
    chex.assert_type([terminated, truncated], bool)
    ratio, value, next_value = jax.lax.stop_gradient((ratio, value, next_value))
    rho, c = jnp.minimum(rho_bar, ratio), jnp.minimum(c_bar, ratio)
    discount = gamma * jnp.where(terminated, 0.0, 1.0)
    done = terminated | truncated
    delta = rho * (reward + discount * next_value - value)
    decay = gamma * c * jnp.where(done, 0.0, 1.0)

    def backward(correction, step):  # vs_t - v(s_t)
        delta, decay = step
        correction = delta + decay * correction
        return correction, correction

    _, correction = jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)
    target = value + correction
    next_target = jnp.where(done, next_value, jnp.concatenate([target[1:], next_value[-1:]]))
    return rho * (reward + discount * next_target - value), target
