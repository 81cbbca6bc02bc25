"""Sarsa(lambda) and Watkins's Q(lambda) (Sutton and Barto 2018, sections 12.7 and 12.10).

A step marks its entry in the trace, every entry moves by its trace, then the trace decays by gamma
lambda. As in `n_step` Sarsa(lambda) learns one step late. Q(lambda) needs no next action to learn;
the trace is cut when the next action turns out not to be greedy by the table as it then is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from rljax.agents.tabular.common import (
    ControlConfig,
    QTable,
    TableState,
    error_of,
    exploration,
    exploring,
    q_table,
    soft_value,
    tabular,
)
from rljax.config import config, option
from rljax.ops import td
from rljax.types import Agent, Array, EnvSpec, Mean, PyTree, Shared, identity

TRACES = ("accumulating", "replacing", "clearing", "dutch")


@config
class SarsaLambdaConfig(ControlConfig):
    trace_lambda: float = option(0.9, "lambda; 0 is the one-step algorithm", low=0, high=1)
    trace: str = option("replacing", "how a visit marks its entry", choices=TRACES)


def marked(trace: Array, place: Any, kind: str, rate: Any) -> Array:
    """The trace after a visit of `place`, an index into it.

    accumulating: e + 1; replacing: 1; clearing: 1, and 0 for the other actions of the state, as the
    notes have it; dutch: (1 - rate) e + 1.
    """
    if kind == "accumulating":
        return trace.at[place].add(1.0)
    if kind == "dutch":
        return trace.at[place].set((1 - rate) * trace[place] + 1.0)
    if kind == "clearing":
        trace = trace.at[place[0]].set(0.0)
    return trace.at[place].set(1.0)


class Waiting(NamedTuple):
    trace: Array  # [S, A]
    obs: Array  # the last step, whose next action is not known yet
    action: Array
    reward: Array
    waits: Array  # bool: there is one


def sarsa_lambda(
    config: SarsaLambdaConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes a Sarsa(lambda) agent: `q += learning_rate (r + gamma q(s', a') - q(s, a)) e`."""

    def begin():
        table = q_table(config, spec)
        zero = jnp.int32(0)
        episode = Waiting(jnp.zeros_like(table.q), zero, zero, jnp.float32(0), jnp.bool_(False))
        return TableState(table, Shared(zero), episode)

    def reinforce(q, trace, place, target, due):
        trace = jnp.where(due, marked(trace, place, config.trace, config.learning_rate), trace)
        error = jnp.where(due, target - q[place], 0.0)
        return q + config.learning_rate * error * trace, trace, error_of(error, due)

    def learn(state, step, noise):
        del noise
        q, last = state.params.q, state.episode
        target = last.reward + config.gamma * q[step.obs, step.action]
        place = last.obs, last.action
        q, trace, first = reinforce(q, last.trace, place, target, last.waits)
        trace = config.gamma * config.trace_lambda * trace  # of nothing at the start
        ended = step.terminated | step.truncated
        value = soft_value(q[step.next_obs], exploration(config, state))
        target = td.td_target(step.reward, step.terminated, config.gamma, value)
        q, _, rest = reinforce(q, trace, (step.obs, step.action), target, ended)
        trace = jnp.where(ended, 0.0, trace)
        episode = Waiting(trace, step.obs, step.action, step.reward, ~ended)
        error = Mean(first.total + rest.total, first.weight + rest.weight)
        return state._replace(params=QTable(q), episode=episode), error

    return tabular(spec, begin, learn, exploring(config, spec), average=average)


def q_lambda(
    config: SarsaLambdaConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes a Watkins's Q(lambda) agent: `q += learning_rate (r + gamma max q(s', .) - q(s, a)) e`.

    Of the book's variants this corrects before the next action is chosen.
    """

    def begin():
        table = q_table(config, spec)
        return TableState(table, Shared(jnp.int32(0)), jnp.zeros_like(table.q))

    def learn(state, step, noise):
        del noise
        q, place = state.params.q, (step.obs, step.action)
        greedy = q[place] >= q[step.obs].max()
        trace = jnp.where(greedy, config.gamma * config.trace_lambda * state.episode, 0.0)
        trace = marked(trace, place, config.trace, config.learning_rate)
        value = q[step.next_obs].max()
        target = td.td_target(step.reward, step.terminated, config.gamma, value)
        error = target - q[place]
        q = q + config.learning_rate * error * trace
        trace = jnp.where(step.terminated | step.truncated, 0.0, trace)
        return state._replace(params=QTable(q), episode=trace), error_of(error)

    return tabular(spec, begin, learn, exploring(config, spec), average=average)
