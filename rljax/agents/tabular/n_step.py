"""Sarsa, n-step Sarsa and n-step tree backup (Sutton and Barto 2018, sections 6.4, 7.2, 7.5).

Sarsa learns of a step when the next action, which it bootstraps from, has been taken: its table is
one step late, but is the textbook's whenever it is looked at to act. Where an episode ends all that
waits is learned, the oldest first; where a time limit ended it no next action will be taken, and
what the policy expects there stands in. n = 1 is one-step Sarsa, n above any length Monte Carlo.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.agents.tabular.common import (
    ControlConfig,
    QTable,
    TableState,
    error_of,
    exploration,
    exploring,
    q_table,
    soft_policy,
    soft_value,
    tabular,
)
from rljax.config import config, option
from rljax.types import Agent, Array, EnvSpec, Mean, PyTree, Shared, Transition, identity


@config
class NStepSarsaConfig(ControlConfig):
    n_step: int = option(4, "rewards of a return (n); 1 is Sarsa", low=1)


@config
class TreeBackupConfig(ControlConfig):
    n_step: int = option(4, "levels of the tree (n)", low=1)
    target_policy: str = option(
        "greedy", "of which it learns; epsilon_greedy is its own",
        choices=("greedy", "epsilon_greedy"),
    )  # fmt: skip


class Window(NamedTuple):
    """The last n steps of an episode, the newest last; `size` of them are there."""

    obs: Array  # [n]
    action: Array  # [n]
    reward: Array  # [n]
    size: Array  # int32

    @property
    def there(self) -> Array:
        """`[n]` bool."""
        n = self.obs.shape[-1]
        return jnp.arange(n) >= n - self.size


def empty_window(n: int) -> Window:
    """Before the first step of an episode."""
    place = jnp.zeros(n, jnp.int32)
    return Window(place, place, jnp.zeros(n), jnp.int32(0))


def slide(window: Window, step: Transition) -> Window:
    """With one step more, without the oldest of n."""

    def newest_last(old, new):
        return jnp.concatenate([old[1:], new[None].astype(old.dtype)])

    return Window(
        newest_last(window.obs, step.obs), newest_last(window.action, step.action),
        newest_last(window.reward, step.reward),
        jnp.minimum(window.size + 1, window.obs.shape[-1]),
    )  # fmt: skip


def n_step_returns(reward: Array, value: Array, gamma: Any) -> Array:
    """The discounted sum of each reward, those after it, and a value behind them. `[n] -> [n]`."""

    def backward(after, reward):
        total = reward + gamma * after
        return total, total

    return jax.lax.scan(backward, value, reward, reverse=True, unroll=len(reward) == 1)[1]


def correct(table: Array, place: Any, target: Array, due: Array, rate: Any) -> tuple[Array, Mean]:
    """Moves an entry towards its target, where that is due."""
    error = jnp.where(due, target - table[place], 0.0)
    return table.at[place].add(rate * error), error_of(error, due)


def correct_each(
    table: Array, places: Any, target: Array, due: Array, rate: Any
) -> tuple[Array, Mean]:
    """Moves entries one after another, `[n]`; one may stand there several times."""

    def one(table, x):
        place, target, due = x
        return correct(table, place, target, due, rate)

    table, errors = jax.lax.scan(one, table, (places, target, due), unroll=len(due) == 1)
    return table, jax.tree.map(jnp.sum, errors)


def sarsa(
    config: ControlConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a Sarsa agent, eq. 6.7, or n-step Sarsa where the config has `n_step`, eq. 7.5.

    G = r_1 + gamma r_2 + ... + gamma^n q(s_n, a_n)
    q(s_0, a_0) += learning_rate (G - q(s_0, a_0))
    """
    n = getattr(config, "n_step", 1)

    def begin():
        return TableState(q_table(config, spec), Shared(jnp.int32(0)), empty_window(n))

    def learn(state, step, noise):
        del noise
        q, window = state.params.q, state.episode
        # the action that the oldest step waited for
        target = n_step_returns(window.reward, q[step.obs, step.action], config.gamma)[0]
        oldest = window.obs[0], window.action[0]
        q, first = correct(q, oldest, target, window.there[0], config.learning_rate)
        window = slide(window, step)
        ended = step.terminated | step.truncated
        value = soft_value(q[step.next_obs], exploration(config, state))
        value = jnp.where(step.terminated, 0.0, value)
        targets = n_step_returns(window.reward, value, config.gamma)
        places, due = (window.obs, window.action), window.there & ended
        q, rest = correct_each(q, places, targets, due, config.learning_rate)
        window = window._replace(size=jnp.where(ended, 0, window.size))
        error = jax.tree.map(jnp.add, first, rest)
        return state._replace(params=QTable(q), episode=window), error

    return tabular(spec, begin, learn, exploring(config, spec), average=average)


def n_step_sarsa(
    config: NStepSarsaConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes an n-step Sarsa agent: see `sarsa`."""
    return sarsa(config, spec, average=average)


def tree_backup(
    config: TreeBackupConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes an n-step tree backup agent, eq. 7.16: off-policy without importance weights.

        G_t = r + gamma sum_{a != A} pi(a|S) q(S, a) + gamma pi(A|S) G_{t+1},  S and A the next

    n = 1 is Expected Sarsa, or with the greedy target policy Q-learning.
    """

    def begin():
        return TableState(q_table(config, spec), Shared(jnp.int32(0)), empty_window(config.n_step))

    def learn(state, step, noise):
        del noise
        window = slide(state.episode, step)
        ended = step.terminated | step.truncated
        epsilon = exploration(config, state) if config.target_policy == "epsilon_greedy" else 0.0
        due = window.there & (ended | (jnp.arange(config.n_step) == 0))

        def returns(q):
            policy = soft_policy(q[window.obs], epsilon)  # [n, A]
            taken = jnp.take_along_axis(policy, window.action[:, None], axis=-1)[:, 0]
            is_taken = jax.nn.one_hot(window.action, spec.num_actions, dtype=bool)
            others = jnp.where(is_taken, 0.0, policy * q[window.obs]).sum(axis=-1)

            def backward(value, x):  # value: of the state that the step leads to
                reward, others, taken = x
                total = reward + config.gamma * value
                return others + taken * total, total

            value = soft_value(q[step.next_obs], epsilon)
            value = jnp.where(step.terminated, 0.0, value)
            rows = window.reward, others, taken
            return jax.lax.scan(backward, value, rows, reverse=True)[1]

        def one(q, i):  # each correction may change the returns of those after it
            place = window.obs[i], window.action[i]
            return correct(q, place, returns(q)[i], due[i], config.learning_rate)

        q, errors = jax.lax.scan(one, state.params.q, jnp.arange(config.n_step))
        window = window._replace(size=jnp.where(ended, 0, window.size))
        error = jax.tree.map(jnp.sum, errors)
        return state._replace(params=QTable(q), episode=window), error

    return tabular(spec, begin, learn, exploring(config, spec), average=average)
