"""Temporal-difference learning of action values: targets, losses, and acting by them."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from rljax.types import Array


def chosen(values: Array, action: Array) -> Array:
    """What belongs to the action taken: `[..., A, *], [...] -> [..., *]`.

    By a sum over the actions, the others left out: on a CPU a gather's gradient is a slow scatter.
    """
    axis = action.ndim
    mask = action[..., None] == jnp.arange(values.shape[axis]).reshape(*(1,) * axis, -1)
    mask = mask.reshape(*mask.shape, *(1,) * (values.ndim - axis - 1))
    return jnp.where(mask, values, 0.0).sum(axis=axis)


def select_max_action(online: Array, target: Array) -> Array:
    """The action whose value is bootstrapped from in DQN: `argmax_a Q_target(s', a)`.

    `[..., A], [..., A] -> [...]` int32; Mnih et al. 2015, https://doi.org/10.1038/nature14236.
    """
    chex.assert_equal_shape([online, target])
    return target.argmax(axis=-1).astype(jnp.int32)


def select_double_action(online: Array, target: Array) -> Array:
    """The action whose value is bootstrapped from in Double DQN: `argmax_a Q_online(s', a)`.

    Its value is still the target network's. `[..., A], [..., A] -> [...]` int32;
    https://arxiv.org/abs/1509.06461 (the equation of section 3).
    """
    chex.assert_equal_shape([online, target])
    return online.argmax(axis=-1).astype(jnp.int32)


def action_selection(double: bool) -> Callable[[Array, Array], Array]:
    """Returns the rule that selects the next action: `select_double_action` if `double`."""
    return select_double_action if double else select_max_action


def td_target(reward: Array, terminated: Array, discount: Array | float, value: Array) -> Array:
    """`r + discount (1 - terminated) v(s')`: a time limit keeps the value of what was reached.

    `[...] -> [...]`; `discount` is gamma, or gamma^n after the n rewards of an n-step return.
    """
    chex.assert_equal_shape([reward, terminated, value])
    return reward + discount * jnp.where(terminated, 0.0, value)


def squared(td_error: Array) -> Array:
    """`d^2 / 2`, `[...] -> [...]`."""
    return 0.5 * jnp.square(td_error)


def huber(td_error: Array) -> Array:
    """`d^2 / 2` up to 1 and `|d| - 1/2` beyond: the gradient is the error, clipped to [-1, 1].

    `[...] -> [...]`; Mnih et al. 2015, Methods.
    """
    size = jnp.abs(td_error)
    within = jnp.minimum(size, 1.0)
    return within * (size - 0.5 * within)


LOSSES = {"huber": huber, "squared": squared}


def importance_weights(probability: Array, min_probability: Array, beta: Array | float) -> Array:
    """`(P_i / min_j P_j)^-beta`, https://arxiv.org/abs/1511.05952 (section 3.4).

    Equal to `(N P_i)^-beta` over the largest such weight of any item in replay; exactly 1 where
    all items are as probable. `[N], [] -> [N]`.
    """
    chex.assert_rank(min_probability, 0)
    return (probability / min_probability) ** -beta


def epsilon_schedule(
    step: Array | int, start: float | Array, end: float | Array, duration: float | Array
) -> Array:
    """Falls linearly from `start` to `end` over `duration` steps and then stays there."""
    return start + (end - start) * jnp.clip(step / jnp.maximum(duration, 1.0), 0.0, 1.0)


def epsilon_greedy(values: Array, epsilon: Array | float, explore: Array, order: Array) -> Array:
    """The best action, or with probability epsilon any: `P(best) = 1 - epsilon + epsilon / A`.

    Ties go to each of the best alike.

    Args:
      values: `[..., A]`.
      explore: `[...]`, uniform in [0, 1): it explores where this is below epsilon.
      order: `[..., A]`, uniform in [0, 1): it takes the largest of those that it may take.
    Returns: actions `[...]` int32.
    """
    chex.assert_equal_shape([values, order])
    best = values >= values.max(axis=-1, keepdims=True)
    allowed = best | (explore < epsilon)[..., None]
    return jnp.where(allowed, order, -1.0).argmax(axis=-1).astype(jnp.int32)


def soft_value(values: Array, temperature: float | Array) -> Array:
    """`tau log sum_a exp(Q(s, a) / tau)`, the value of the softmax policy with its entropy.

    Equal to `sum_a pi(a|s) (Q(s, a) - tau log pi(a|s))`, https://arxiv.org/abs/2007.14430 (eq. 1).
    `[..., A] -> [...]`.
    """
    best = values.max(axis=-1)
    below = (values - best[..., None]) / temperature
    return best + temperature * jax.nn.logsumexp(below, axis=-1)


def munchausen_bonus(
    values: Array, action: Array, temperature: float | Array, log_policy_floor: float | Array
) -> Array:
    """`max(tau log pi(a|s), l0)`, which Munchausen agents add to rewards, weighted by alpha.

    pi is the softmax of `Q / tau`; https://arxiv.org/abs/2007.14430 (eq. 2, and section 3 for the
    bound). `[..., A], [...] -> [...]`.
    """
    log_policy = chosen(values, action) - soft_value(values, temperature)  # times tau
    return jnp.clip(log_policy, log_policy_floor, 0.0)
