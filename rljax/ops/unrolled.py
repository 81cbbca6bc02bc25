"""Targets of a model that is unrolled along a sequence of replayed steps, as in MuZero."""

from typing import Any, NamedTuple

import chex
import jax.numpy as jnp

from rljax.types import Array


class UnrolledTargets(NamedTuple):
    """Targets of the states 0, ..., K of a sequence of L steps, K at most L - 1; see `unrolled`.

    Attributes:
      value: n-step returns, `[K + 1, N]`; 0 in absorbing states.
      reward: rewards of the steps 0, ..., K - 1, `[K, N]`; 0 in absorbing states.
      is_real: the state belongs to the episode of state 0, `[K + 1, N]` bool.
      is_known: that, or it follows a terminal state and is absorbing, `[K + 1, N]` bool. States
        after a time limit are unknown.
    """

    value: Array
    reward: Array
    is_real: Array
    is_known: Array


def last_step(terminated: Array, truncated: Array) -> Array:
    """Returns the step with which the first episode of a sequence ends, `[L, N] -> [N]`.

    It is L - 1 where the episode does not end within the sequence.

    Example:
      >>> no = jnp.zeros((3, 2), bool)
      >>> last_step(no.at[0, 1].set(True), no).tolist()
      [2, 0]
    """
    done = (terminated | truncated).at[-1].set(True)
    return done.argmax(axis=0)


def unrolled(
    reward: Array, terminated: Array, truncated: Array, value: Array, final_value: Array,
    discount: Any, n: int, num_unrolled: int,
) -> UnrolledTargets:  # fmt: skip
    """Returns the targets of a model that is unrolled from the first state of each sequence.

        z_t = r_t + d r_{t+1} + ... + d^(n-1) r_{t+n-1} + d^n v(s_{t+n})

    Schrittwieser et al. 2020, https://arxiv.org/abs/1911.08265 (appendices B and G). The return
    ends with the episode: after a terminal state nothing is added, at a time limit and at the end
    of the sequence the value of the state that was reached. States after a terminal state are
    absorbing, with rewards and values of 0; states after a time limit have no targets.

    Args:
      reward, terminated, truncated: the steps of sequences, `[L, N]`.
      value: values of the observations of the steps, `[L, N]`.
      final_value: value of `next_obs` of `last_step`, `[N]`.
      discount: d; negative in a game of two players, where the next value is the opponent's.
      n: number of rewards in a return, at least 1; where fewer steps follow, all of them.
      num_unrolled: K, at most L - 1.

    Example:
      >>> no = jnp.zeros((3, 1), bool)
      >>> reward, value = jnp.array([[1.0], [2.0], [4.0]]), jnp.array([[0.0], [0.0], [8.0]])
      >>> targets = unrolled(reward, no, no, value, jnp.array([16.0]), 0.5, n=2, num_unrolled=1)
      >>> targets.value.tolist()  # 1 + 2 / 2 + 8 / 4 and 2 + 4 / 2 + 16 / 4
      [[4.0], [8.0]]
    """
    chex.assert_rank([reward, terminated, truncated, value, final_value], [2, 2, 2, 2, 1])
    chex.assert_equal_shape([reward, terminated, truncated, value])
    chex.assert_type([reward, value, final_value], float)
    chex.assert_type([terminated, truncated], bool)
    length = reward.shape[0]
    last = last_step(terminated, truncated)
    is_last = jnp.arange(length)[:, None] == last[None]
    next_value = jnp.where(is_last, final_value[None], jnp.roll(value, -1, axis=0))
    next_value = jnp.where(terminated, 0.0, next_value)
    one_step = returns = reward + discount * next_value
    for _ in range(n - 1):
        longer = reward + discount * jnp.roll(returns, -1, axis=0)
        returns = jnp.where(is_last, one_step, longer)
    time = jnp.arange(num_unrolled + 1)[:, None]
    is_real = time <= last[None]
    ends_terminal = (is_last & terminated).any(axis=0)
    return UnrolledTargets(
        jnp.where(is_real, returns[: num_unrolled + 1], 0.0),
        jnp.where(is_real[:-1], reward[:num_unrolled], 0.0),
        is_real, is_real | ends_terminal[None],
    )  # fmt: skip
