"""Q-learning (Watkins 1989), Expected Sarsa and double Q-learning (van Hasselt 2010).

Sutton and Barto (2018), eq. 6.8, eq. 6.9 and section 6.7. The table is updated after every step.
Double Q-learning breaks ties of the maximizing action at random, as acting does.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from rljax.agents.tabular.common import (
    ControlConfig,
    QTable,
    current_epsilon,
    epsilon_greedy,
    initial_state,
    q_table,
    tabular_agent,
    update_entry,
)
from rljax.ops import td
from rljax.ops.epsilon_greedy import epsilon_greedy_value
from rljax.types import Agent, Array, EnvSpec, PyTree, identity


def greedy_value(q: Array, epsilon: Array) -> Array:
    """Returns `max_a q(s, a)`, the value of the greedy policy. `[A] -> []`."""
    del epsilon
    return q.max()


def q_learning(
    config: ControlConfig, spec: EnvSpec, *,
    next_value: Callable[[Array, Array], Array] = greedy_value,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a Q-learning agent.

        q(s, a) += alpha (r + gamma max_a' q(s', a') - q(s, a))

    The value of s' is 0 where the episode terminated.

    Args:
      config: options; floats may be tracers.
      spec: description of the environment, with numbered states and discrete actions.
      next_value: `(q(s', .)[A], epsilon) -> []`, the value of the next state.
      average: mean over workers.

    Example:
      >>> import jax, rljax
      >>> env = rljax.build("rljax/Maze", num_envs=1)
      >>> agent = q_learning(ControlConfig(learning_rate=0.5), env.spec)
      >>> agent.init(jax.random.key(0)).params.q.shape
      (16, 4)
    """

    def init_state():
        return initial_state(q_table(config, spec))

    def learn(state, step, noise):
        del noise
        q = state.params.q
        next_v = next_value(q[step.next_obs], current_epsilon(config, state))
        td_target = td.td_target(step.reward, step.terminated, config.gamma, next_v)
        q, metric = update_entry(q, (step.obs, step.action), td_target, config.learning_rate)
        return state._replace(params=QTable(q)), metric

    return tabular_agent(spec, init_state, learn, epsilon_greedy(config, spec), average=average)


def expected_sarsa(
    config: ControlConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes an Expected Sarsa agent: Q-learning with the expectation over the behavior policy.

    q(s, a) += alpha (r + gamma sum_a' pi(a'|s') q(s', a') - q(s, a))
    """
    return q_learning(config, spec, next_value=epsilon_greedy_value, average=average)


class DoubleQTable(NamedTuple):
    """Two tables of action values; each is updated with the values of the other."""

    tables: Array  # [2, S, A]

    @property
    def q(self) -> Array:
        """The mean of both tables, which the agent acts on, `[S, A]`."""
        return self.tables.mean(axis=-3)


def double_q_learning(
    config: ControlConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes a double Q-learning agent. Each step updates one of two tables, q1 or q2, at random.

    q1(s, a) += alpha (r + gamma q2(s', argmax_a' q1(s', a')) - q1(s, a))
    """

    def init_state():
        q = q_table(config, spec).q
        return initial_state(DoubleQTable(jnp.stack([q, q])))

    def learn(state, step, noise):
        tables = state.params.tables
        updated = (noise[0] < 0.5).astype(jnp.int32)  # index of the table to update
        next_action = td.epsilon_greedy(tables[updated, step.next_obs], 0.0, noise[0], noise[1:])
        next_q = tables[1 - updated, step.next_obs, next_action]
        td_target = td.td_target(step.reward, step.terminated, config.gamma, next_q)
        index = updated, step.obs, step.action
        tables, metric = update_entry(tables, index, td_target, config.learning_rate)
        return state._replace(params=DoubleQTable(tables)), metric

    return tabular_agent(
        spec, init_state, learn, epsilon_greedy(config, spec),
        noise_shape=(1 + spec.num_actions,), average=average,
    )  # fmt: skip
