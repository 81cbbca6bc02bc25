"""Returns and advantages over trajectories `[T, B]`, and the bootstrap values they need.

Bootstrapping is masked by `terminated` alone; the recursions stop at `terminated | truncated`.
`next_value` is the value of the observation reached by the action, before any reset.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from rljax.ops import platform
from rljax.types import Array, PyTree, Transition


def gae(
    reward: Array, value: Array, next_value: Array, terminated: Array, truncated: Array,
    gamma: float | Array, gae_lambda: float | Array,
) -> tuple[Array, Array]:  # fmt: skip
    """Generalized advantage estimation, https://arxiv.org/abs/1506.02438 (eq. 16).

        delta_t = r_{t+1} + gamma (1 - terminated_t) v(s_{t+1}) - v(s_t)
        A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1},  done = terminated or truncated

    The value of a terminal state is 0. A truncated episode bootstraps from `next_value`. lambda 0
    gives the TD error, lambda 1 the n-step return minus the value.

    Args:
      reward, value, next_value: `[T, B]` (or `[T]`) floats.
      terminated, truncated: the same shape, bool.
      gamma: discount in [0, 1].
      gae_lambda: lambda in [0, 1].

    Returns:
      Advantages A and value targets A + v, both of the shape of `reward`.

    Example:
      >>> never = jnp.zeros(2, bool)
      >>> gae(jnp.ones(2), jnp.zeros(2), jnp.array([0.0, 4.0]), never, never, 0.5, 1.0)[0]
      Array([2.5, 3. ], dtype=float32)
    """
    chex.assert_equal_shape([reward, value, next_value, terminated, truncated])
    chex.assert_rank(reward, {1, 2})
    chex.assert_type([reward, value, next_value], float)
    chex.assert_type([terminated, truncated], bool)
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

    lambda_t is 0 where an episode ends and at the last step of the trajectory. lambda 1 gives the
    discounted return, bootstrapped at truncations and at the end of the trajectory; lambda 0 the
    one-step target.

    Args:
      reward, next_value: `[T, B]` (or `[T]`) floats.
      terminated, truncated: the same shape, bool.
      gamma: discount in [0, 1].
      trace_lambda: lambda in [0, 1].

    Returns:
      The returns G, of the shape of `reward`.

    Example:
      >>> never, last = jnp.zeros(3, bool), jnp.array([False, False, True])
      >>> lambda_returns(jnp.ones(3), jnp.zeros(3), last, never, 0.5, 1.0)
      Array([1.75, 1.5 , 1.  ], dtype=float32)
    """
    chex.assert_equal_shape([reward, next_value, terminated, truncated])
    chex.assert_rank(reward, {1, 2})
    chex.assert_type([reward, next_value], float)
    chex.assert_type([terminated, truncated], bool)
    trace = trace_lambda * jnp.where(terminated | truncated, 0.0, 1.0)
    discount = gamma * jnp.where(terminated, 0.0, 1.0)
    next_value = jnp.where(terminated, 0.0, next_value)

    def backward(next_return, step):
        reward, next_value, trace, discount = step
        bootstrap = (1.0 - trace) * next_value + trace * next_return
        current_return = reward + discount * bootstrap
        return current_return, current_return

    steps = (reward, next_value, trace, discount)
    _, returns = jax.lax.scan(backward, next_value[-1], steps, reverse=True)
    return returns


def next_values(value_of: Callable[[PyTree], Array], trajectory: Transition, value: Array) -> Array:
    """Returns v(next_obs) of each step, `[T, B]`, with as few evaluations as possible.

    Within an episode, `next_obs` of one step is `obs` of the following step, whose value is known.
    Only the end of the trajectory and the truncated steps are evaluated, one truncated step per
    environment and loop iteration. The `while_loop`, unlike `cond`, stays lazy under `vmap`. On a
    GPU, where the host has to wait for the condition of the loop, all steps are evaluated in one
    call. Where an episode terminated the result is arbitrary and must be masked.

    Args:
      value_of: `(obs[B, ...]) -> value[B]`.
      trajectory: `[T, B]`.
      value: `value_of(trajectory.obs)`, `[T, B]` floats.

    Example:
      >>> obs, no = jnp.arange(3.0)[:, None], jnp.zeros((3, 1), bool)
      >>> steps = Transition(obs, None, obs, no, no.at[1].set(True), obs + 10)
      >>> next_values(lambda obs: obs, steps, obs)[:, 0]
      Array([ 1., 11., 12.], dtype=float32)
    """
    chex.assert_equal_shape([value, trajectory.terminated, trajectory.truncated])
    chex.assert_rank(value, 2)
    chex.assert_type(value, float)
    chex.assert_type([trajectory.terminated, trajectory.truncated], bool)
    pending = trajectory.truncated.at[-1].set(False)
    if platform.is_gpu():
        evaluated = jax.vmap(value_of)(trajectory.next_obs)
        return jnp.where(pending, evaluated, jnp.concatenate([value[1:], evaluated[-1:]]))
    last_obs = jax.tree.map(lambda x: x[-1], trajectory.next_obs)
    next_value = jnp.concatenate([value[1:], value_of(last_obs)[None]])
    environments = jnp.arange(value.shape[1])

    def evaluate_one_each(carry):
        next_value, pending = carry
        times = pending.argmax(axis=0)
        obs = jax.tree.map(lambda x: x[times, environments], trajectory.next_obs)
        old = next_value[times, environments]
        new = jnp.where(pending[times, environments], value_of(obs), old)
        next_value = next_value.at[times, environments].set(new)
        return next_value, pending.at[times, environments].set(False)

    return jax.lax.while_loop(
        lambda carry: carry[1].any(), evaluate_one_each, (next_value, pending)
    )[0]


def discounted_sums(
    reward: Array, done: Array, gamma: float | Array, start: Array
) -> tuple[Array, Array]:
    """Discounted sums of past rewards, which scale rewards in `agents.normalize`.

        R_t = r_{t+1} + gamma R_{t-1},  with R reset to 0 after each end of an episode.

    Args:
      reward: `[T, B]` floats.
      done: `[T, B]` bool, where an episode ends.
      gamma: discount in [0, 1].
      start: `[B]` floats, R before the first step.

    Returns:
      R `[T, B]`, and `start` `[B]` of the next trajectory.

    Example:
      >>> discounted_sums(jnp.ones((3, 1)), jnp.zeros((3, 1), bool), 0.5, jnp.zeros(1))[0][:, 0]
      Array([1.  , 1.5 , 1.75], dtype=float32)
    """
    chex.assert_equal_shape([reward, done])
    chex.assert_equal_shape([reward[0], start])
    chex.assert_type([reward, start], float)
    chex.assert_type(done, bool)

    def forward(total, step):
        reward, done = step
        total = reward + gamma * total
        return jnp.where(done, 0.0, total), total

    last, sums = jax.lax.scan(forward, start, (reward, done))
    return sums, last


def episode_times(done: Array, start: Array) -> tuple[Array, Array]:
    """Returns the time of each step within its episode, counted from 0.

    Args:
      done: `[T, B]` bool, where an episode ends.
      start: `[B]` int32, the time of the first step.

    Returns:
      Times `[T, B]`, and `start` `[B]` of the next trajectory.

    Example:
      >>> episode_times(jnp.array([[False], [True], [False]]), jnp.array([3]))[0][:, 0]
      Array([3, 4, 0], dtype=int32)
    """
    chex.assert_equal_shape([done[0], start])
    chex.assert_type(done, bool)
    chex.assert_type(start, int)

    def forward(time, done):
        return jnp.where(done, 0, time + 1), time

    last, times = jax.lax.scan(forward, start, done)
    return times, last
