"""Greedy, epsilon-soft and epsilon-greedy policies of action values, as tables of probabilities.

An epsilon-soft policy selects each action with probability at least `epsilon / A` (Sutton and
Barto 2018, section 5.4). `ops.td.epsilon_greedy` samples an action instead.
"""

import chex
import jax.numpy as jnp

from rljax.types import Array


def greedy(q: Array, tolerance: float | Array = 0.0) -> Array:
    """Returns the greedy policy; actions within `tolerance` of the maximum share its probability.

    `[S, A] -> [S, A]`

    Example:
      >>> greedy(jnp.array([[1.0, 3.0, 3.0, 0.0]])).tolist()
      [[0.0, 0.5, 0.5, 0.0]]
    """
    chex.assert_rank(q, 2)
    is_best = (q >= q.max(axis=-1, keepdims=True) - tolerance).astype(jnp.result_type(float))
    return is_best / is_best.sum(axis=-1, keepdims=True)


def epsilon_soft(policy: Array, epsilon: float | Array) -> Array:
    """Returns the policy that takes a random action with probability `epsilon`.

    `[S, A] -> [S, A]`; of a greedy policy this is the epsilon-greedy policy.

    Example:
      >>> epsilon_soft(jnp.array([[1.0, 0.0]]), 0.5).tolist()
      [[0.75, 0.25]]
    """
    chex.assert_rank(policy, 2)
    return (1 - epsilon) * policy + epsilon / policy.shape[-1]


def epsilon_greedy_value(q: Array, epsilon: float | Array) -> Array:
    """Returns the expectation of q over its epsilon-greedy policy. `[..., A] -> [...]`.

    sum_a pi(a|s) q(s, a) = (1 - epsilon) max_a q(s, a) + epsilon mean_a q(s, a)

    Illegal actions, of value -inf, are left out of the mean.

    Example:
      >>> epsilon_greedy_value(jnp.array([1.0, 3.0, -jnp.inf]), 0.5)
      Array(2.5, dtype=float32)
    """
    legal = q > -jnp.inf
    mean = jnp.where(legal, q, 0.0).sum(axis=-1) / legal.sum(axis=-1)
    return (1 - epsilon) * q.max(axis=-1) + epsilon * mean


def epsilon_greedy_policy(q: Array, epsilon: float | Array) -> Array:
    """Returns the epsilon-greedy policy of action values; greedy actions share its probability.

    `[S, A] -> [S, A]`. Illegal actions, of value -inf, have probability 0.

    Example:
      >>> epsilon_greedy_policy(jnp.array([[1.0, 3.0, -jnp.inf]]), 0.5).tolist()
      [[0.25, 0.75, 0.0]]
    """
    legal = q > -jnp.inf
    uniform = legal / legal.sum(axis=-1, keepdims=True)
    return (1 - epsilon) * greedy(q) + epsilon * uniform
