"""Q-learning (Watkins 1989), Expected Sarsa and double Q-learning (van Hasselt 2010).

Sutton and Barto 2018, eq. 6.8, eq. 6.9 and section 6.7. They correct an entry as soon as its step
is taken. Of equal actions double Q-learning takes the best at random, as its behaviour does.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from rljax.agents.tabular.common import (
    ControlConfig,
    TableState,
    error_of,
    exploration,
    exploring,
    q_table,
    soft_value,
    tabular,
)
from rljax.ops import td
from rljax.types import Agent, Array, EnvSpec, PyTree, Shared, identity


def greedy_value(q: Array, epsilon: Array) -> Array:
    """`max_a q(s', a)`: what the best policy is worth. `[A] -> []`."""
    del epsilon
    return q.max()


def q_learning(
    config: ControlConfig, spec: EnvSpec, *,
    bootstrap: Callable[[Array, Array], Array] = greedy_value,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a Q-learning agent.

        q(s, a) += learning_rate (r + gamma (1 - terminated) max_a' q(s', a') - q(s, a))

    Args:
      config: floats may be tracers.
      spec: of the environment that it will see.
      bootstrap: `(q(s', .)[A], epsilon) -> []`, what the next state is worth.
      average: over workers.
    """

    def begin():
        return TableState(q_table(config, spec), Shared(jnp.int32(0)))

    def learn(state, step, noise):
        del noise
        table = state.params
        value = bootstrap(table.q[step.next_obs], exploration(config, state))
        target = td.td_target(step.reward, step.terminated, config.gamma, value)
        error = target - table.q[step.obs, step.action]
        q = table.q.at[step.obs, step.action].add(config.learning_rate * error)
        return state._replace(params=table._replace(q=q)), error_of(error)

    return tabular(spec, begin, learn, exploring(config, spec), average=average)


def expected_sarsa(
    config: ControlConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes an Expected Sarsa agent: the next state is worth what its own policy expects there."""
    return q_learning(config, spec, bootstrap=soft_value, average=average)


class DoubleQTable(NamedTuple):
    tables: Array  # [2, S, A], each learned with the other's opinion of its best actions

    @property
    def q(self) -> Array:
        """`[S, A]`: their mean, by which it acts."""
        return self.tables.mean(axis=-3)


def double_q_learning(
    config: ControlConfig, spec: EnvSpec, *,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a double Q-learning agent. A toss decides which table a step corrects:

    q1(s, a) += learning_rate (r + gamma q2(s', argmax_a' q1(s', a')) - q1(s, a))
    """

    def begin():
        q = q_table(config, spec).q
        return TableState(DoubleQTable(jnp.stack([q, q])), Shared(jnp.int32(0)))

    def learn(state, step, noise):
        tables = state.params.tables
        one = (noise[0] < 0.5).astype(jnp.int32)
        best = td.epsilon_greedy(tables[one, step.next_obs], 0.0, noise[0], noise[1:])
        value = tables[1 - one, step.next_obs, best]
        target = td.td_target(step.reward, step.terminated, config.gamma, value)
        error = target - tables[one, step.obs, step.action]
        tables = tables.at[one, step.obs, step.action].add(config.learning_rate * error)
        return state._replace(params=DoubleQTable(tables)), error_of(error)

    noise = (1 + spec.num_actions,)
    acting = exploring(config, spec)
    return tabular(spec, begin, learn, acting, noise=noise, average=average)
