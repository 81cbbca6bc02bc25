"""Temporal-difference learning of action values: TD targets, losses and epsilon-greedy actions."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from rljax.types import Array


def chosen(values: Array, action: Array) -> Array:
    """Returns the values of the actions taken, Q(s, a), without a gather.

    A masked sum over the actions: on a CPU the gradient of a gather is a slow scatter.

    Args:
      values: `[..., A, *]` floats; values of other actions may be infinite or NaN.
      action: `[...]` integers.

    Returns:
      `[..., *]`.

    Example:
      >>> chosen(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 0])).tolist()
      [2.0, 3.0]
    """
    chex.assert_axis_dimension_gteq(values, action.ndim, 1)
    chex.assert_equal_shape_prefix([values, action], action.ndim)
    chex.assert_type([values, action], [float, int])
    axis = action.ndim
    mask = action[..., None] == jnp.arange(values.shape[axis]).reshape(*(1,) * axis, -1)
    mask = mask.reshape(*mask.shape, *(1,) * (values.ndim - axis - 1))
    return jnp.where(mask, values, 0.0).sum(axis=axis)


def select_max_action(online: Array, target: Array) -> Array:
    """Selects the next action by the target network, as DQN: `argmax_a Q_target(s', a)`.

    Mnih et al. 2015, https://doi.org/10.1038/nature14236.

    Args:
      online: values of s' by the online network, `[..., A]`; not used.
      target: values of s' by the target network, `[..., A]`.

    Returns:
      Actions `[...]` int32.
    """
    chex.assert_equal_shape([online, target])
    chex.assert_type([online, target], float)
    return target.argmax(axis=-1).astype(jnp.int32)


def select_double_action(online: Array, target: Array) -> Array:
    """Selects the next action by the online network, as Double DQN: `argmax_a Q_online(s', a)`.

    Its value is still that of the target network, https://arxiv.org/abs/1509.06461 (section 3).

    Args:
      online: values of s' by the online network, `[..., A]`.
      target: values of s' by the target network, `[..., A]`; not used.

    Returns:
      Actions `[...]` int32.
    """
    chex.assert_equal_shape([online, target])
    chex.assert_type([online, target], float)
    return online.argmax(axis=-1).astype(jnp.int32)


def action_selection(double: bool) -> Callable[[Array, Array], Array]:
    """Returns `select_double_action` if `double`, else `select_max_action`."""
    return select_double_action if double else select_max_action


def td_target(reward: Array, terminated: Array, discount: Array | float, value: Array) -> Array:
    """The TD target `r + discount (1 - terminated) v(s')`.

    The value of a terminal state is 0, even if `value` is not finite there; a truncated episode
    bootstraps.

    Args:
      reward: `[...]`.
      terminated: `[...]` bool.
      discount: gamma, or gamma^n for the reward of an n-step return; `[...]` or a number.
      value: value of s', `[...]`.

    Returns:
      Targets `[...]`.

    Example:
      >>> terminated = jnp.array([False, True])
      >>> td_target(jnp.ones(2), terminated, 0.5, jnp.array([10.0, 10.0])).tolist()
      [6.0, 1.0]
    """
    chex.assert_equal_shape([reward, terminated, value])
    chex.assert_type([reward, terminated, value], [float, bool, float])
    return reward + discount * jnp.where(terminated, 0.0, value)


def squared(td_error: Array) -> Array:
    """The squared loss `d^2 / 2`, `[...] -> [...]`."""
    chex.assert_type(td_error, float)
    return 0.5 * jnp.square(td_error)


def huber(td_error: Array) -> Array:
    """The Huber loss: `d^2 / 2` where `|d| <= 1`, else `|d| - 1/2`, `[...] -> [...]`.

    Its gradient is the TD error clipped to [-1, 1]; Mnih et al. 2015 (Methods).

    Example:
      >>> huber(jnp.array([0.5, -3.0])).tolist()
      [0.125, 2.5]
    """
    chex.assert_type(td_error, float)
    size = jnp.abs(td_error)
    clipped = jnp.minimum(size, 1.0)
    return clipped * (size - 0.5 * clipped)


LOSSES = {"huber": huber, "squared": squared}


def importance_weights(probability: Array, min_probability: Array, beta: Array | float) -> Array:
    """Importance-sampling weights `(P(i) / min_j P(j))^-beta`.

    Equal to `(N P(i))^-beta` over its largest value in the buffer, https://arxiv.org/abs/1511.05952
    (section 3.4); exactly 1 where all probabilities are equal.

    Args:
      probability: sampling probabilities of a batch, `[N]`.
      min_probability: smallest sampling probability in the buffer, `[]`.
      beta: exponent; 1 corrects the bias completely, 0 not at all.

    Returns:
      Weights in (0, 1], `[N]`.

    Example:
      >>> importance_weights(jnp.array([0.25, 0.5]), jnp.float32(0.25), beta=1.0).tolist()
      [1.0, 0.5]
    """
    chex.assert_rank([probability, min_probability], [1, 0])
    chex.assert_type([probability, min_probability], float)
    return (probability / min_probability) ** -beta


def epsilon_schedule(
    step: Array | int, start: float | Array, end: float | Array, duration: float | Array
) -> Array:
    """Anneals epsilon linearly from `start` to `end` over `duration` steps; then it is constant.

    Example:
      >>> epsilon_schedule(jnp.array([0, 50, 200]), 1.0, 0.5, 100).tolist()
      [1.0, 0.75, 0.5]
    """
    return start + (end - start) * jnp.clip(step / jnp.maximum(duration, 1.0), 0.0, 1.0)


def epsilon_greedy(values: Array, epsilon: Array | float, explore: Array, order: Array) -> Array:
    """Epsilon-greedy actions: `P(a) = epsilon / A`, plus `1 - epsilon` for the greedy action.

    Ties between greedy actions are broken uniformly at random. An action of value -inf is illegal
    and never taken; A then counts the others.

    Args:
      values: action values, `[..., A]`.
      epsilon: probability of a uniformly random action.
      explore: uniform in [0, 1), `[...]`; the action is random where this is below epsilon.
      order: uniform in [0, 1), `[..., A]`; of the greedy (or of all) actions, the one with the
        largest number is taken.

    Returns:
      Actions `[...]` int32.

    Example:
      >>> values, order = jnp.array([[0.0, 2.0, 2.0]]), jnp.array([[0.9, 0.1, 0.5]])
      >>> epsilon_greedy(values, 0.1, explore=jnp.array([0.3]), order=order).tolist()
      [2]
      >>> epsilon_greedy(values, 0.1, explore=jnp.array([0.05]), order=order).tolist()
      [0]
    """
    chex.assert_equal_shape([values, order])
    chex.assert_shape(explore, values.shape[:-1])
    chex.assert_type([values, explore, order], float)
    explores = (explore < epsilon)[..., None]
    lowest = jnp.finfo(values.dtype).min  # every legal action has at least this value
    threshold = jnp.where(explores, lowest, values.max(axis=-1, keepdims=True))
    return jnp.where(values >= threshold, order, -1.0).argmax(axis=-1).astype(jnp.int32)


def soft_value(values: Array, temperature: float | Array) -> Array:
    """The soft value `tau log sum_a exp(Q(s, a) / tau)`, `[..., A] -> [...]`.

    Equal to `sum_a pi(a|s) (Q(s, a) - tau log pi(a|s))`, where pi is the softmax of `Q / tau`;
    https://arxiv.org/abs/2007.14430 (eq. 1).

    Example:
      >>> round(float(soft_value(jnp.array([1.0, 1.0]), temperature=0.5)), 4)  # 1 + 0.5 log 2
      1.3466
    """
    chex.assert_type(values, float)
    max_value = values.max(axis=-1)
    logits = (values - max_value[..., None]) / temperature
    return max_value + temperature * jax.nn.logsumexp(logits, axis=-1)


def munchausen_bonus(
    values: Array, action: Array, temperature: float | Array, log_policy_floor: float | Array
) -> Array:
    """The scaled log-policy that Munchausen DQN adds to the reward: `max(tau log pi(a|s), l0)`.

    pi is the softmax of `Q / tau`; https://arxiv.org/abs/2007.14430 (eq. 2; section 3 for l0).

    Args:
      values: Q(s, .), `[..., A]`.
      action: a, `[...]` integers.
      temperature: tau, positive.
      log_policy_floor: l0, not positive.

    Returns:
      The bonus `[...]`, without its weight alpha.
    """
    scaled_log_policy = chosen(values, action) - soft_value(values, temperature)
    return jnp.clip(scaled_log_policy, log_policy_floor, 0.0)
