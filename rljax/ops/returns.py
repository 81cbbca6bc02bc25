"""Returns and advantages over trajectories `[T, B]`.

Bootstrapping is masked by `terminated` alone; credit is cut at `terminated | truncated`.
`next_value` is the value of the observation *before* any reset.
"""

import chex
import jax
import jax.numpy as jnp

from rljax.types import Array


def gae(
    reward: Array, value: Array, next_value: Array, terminated: Array, truncated: Array,
    gamma: float | Array, gae_lambda: float | Array,
) -> tuple[Array, Array]:  # fmt: skip
    """Generalized advantage estimation, https://arxiv.org/abs/1506.02438 (eq. 16).

        delta_t = r_{t+1} + gamma (1 - terminated_t) v(s_{t+1}) - v(s_t)
        A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}

    A terminal state is worth nothing; a truncated one keeps its value, but credit never
    crosses either end of an episode. lambda 0 gives the TD error, lambda 1 the n-step return
    minus the value.

    Args:
      reward, value, next_value: `[T, B]` (or `[T]`) floats.
      terminated, truncated: the same shape, bool.
      gamma, gae_lambda: in [0, 1].
    Returns:
      Advantages and value targets (`A + v`), the shape of `reward` each.
    """
    chex.assert_equal_shape([reward, value, next_value, terminated, truncated])
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    decay = gamma * gae_lambda * jnp.where(terminated | truncated, 0.0, 1.0)

    def backward(advantage, step):
        delta, decay = step
        advantage = delta + decay * advantage
        return advantage, advantage

    _, advantage = jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)
    return advantage, advantage + value


def lambda_returns(
    reward: Array, next_value: Array, terminated: Array, truncated: Array,
    gamma: float | Array, trace_lambda: float | Array,
) -> Array:  # fmt: skip
    """The lambda-return, Sutton and Barto (2018), eq. 12.18.

        G_t = r_{t+1} + gamma (1 - terminated_t) ((1 - lambda_t) v(s_{t+1}) + lambda_t G_{t+1})

    with lambda_t = 0 where an episode ends (and at the last step, where no G follows).
    lambda 1 is the discounted return with a bootstrap at truncations and at the end of the
    trajectory; lambda 0 the one-step target.

    Args: `[T, B]` (or `[T]`) each; `next_value` is the value of the observation before any reset.
    Returns: the returns, the shape of `reward`.
    """
    chex.assert_equal_shape([reward, next_value, terminated, truncated])
    trace = trace_lambda * jnp.where(terminated | truncated, 0.0, 1.0)
    discount = gamma * jnp.where(terminated, 0.0, 1.0)
    next_value = jnp.where(terminated, 0.0, next_value)

    def backward(following, step):
        reward, next_value, trace, discount = step
        following = reward + discount * ((1.0 - trace) * next_value + trace * following)
        return following, following

    steps = (reward, next_value, trace, discount)
    _, returns = jax.lax.scan(backward, next_value[-1], steps, reverse=True)
    return returns


def discounted_sums(reward: Array, done: Array, gamma: float | Array, start: Array):
    """Running discounted sums of the past, as reward scaling needs them.

        R_t = r_{t+1} + gamma R_{t-1},  with R set to 0 after each end of an episode.

    Args:
      reward, done: `[T, B]`; start: `[B]`, carried over from the trajectory before.
    Returns:
      `R` `[T, B]`, and the `[B]` to carry to the next trajectory.
    """
    chex.assert_equal_shape([reward, done])

    def forward(total, step):
        reward, done = step
        total = reward + gamma * total
        return jnp.where(done, 0.0, total), total

    last, sums = jax.lax.scan(forward, start, (reward, done))
    return sums, last


def episode_times(done: Array, start: Array) -> tuple[Array, Array]:
    """Of each step, how many came before it in its episode.

    Args:
      done: `[T, B]` bool; start: `[B]` int32, the time of the first step.
    Returns:
      Times `[T, B]`, and the `[B]` to carry to the next trajectory.
    """
    chex.assert_equal_shape([done[0], start])

    def forward(time, done):
        return jnp.where(done, 0, time + 1), time

    last, times = jax.lax.scan(forward, start, done)
    return times, last
