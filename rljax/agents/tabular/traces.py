"""Sarsa(lambda) and Watkins's Q(lambda) (Sutton and Barto 2018, sections 12.7 and 12.10).

A step raises the eligibility trace of its entry, all entries are updated in proportion to their
traces, and the traces decay by gamma lambda. Sarsa(lambda) learns from a step once the next action
has been selected (see `n_step`). Q(lambda) learns at once, and sets all traces to 0 before a step
whose action is not greedy.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.agents.tabular.common import (
    ControlConfig,
    QTable,
    current_epsilon,
    epsilon_greedy,
    initial_state,
    q_table,
    tabular_agent,
    td_error_metric,
)
from rljax.config import config, option
from rljax.ops import td
from rljax.ops.epsilon_greedy import epsilon_greedy_value
from rljax.types import Agent, Array, EnvSpec, PyTree, identity

TRACES = ("accumulating", "replacing", "clearing", "dutch")


@config
class SarsaLambdaConfig(ControlConfig):
    """Options of Sarsa(lambda) and Q(lambda)."""

    trace_lambda: float = option(0.9, "trace-decay parameter lambda", low=0, high=1)
    trace: str = option("replacing", "kind of eligibility trace", choices=TRACES)


def updated_trace(trace: Array, index: Any, kind: str, learning_rate: Any) -> Array:
    """Returns the eligibility traces after a visit to an entry.

    accumulating: e + 1. replacing: 1. clearing: 1, and 0 for the other actions of the state (Singh
    and Sutton 1996). dutch: (1 - alpha) e + 1.

    Args:
      trace: `[S]` or `[S, A]`.
      index: the entry, `(s,)` or `(s, a)`.
      kind: one of `TRACES`.
      learning_rate: step size alpha.
    """
    if kind == "accumulating":
        return trace.at[index].add(1.0)
    if kind == "dutch":
        return trace.at[index].set((1 - learning_rate) * trace[index] + 1.0)
    if kind == "clearing":
        trace = trace.at[index[0]].set(0.0)
    return trace.at[index].set(1.0)


class PendingStep(NamedTuple):
    """Traces, and the previous step, which is learned from when its next action is known.

    Attributes:
      trace: eligibility traces `[S, A]`, before the pending step raises its own.
      obs, action, reward: the pending step.
      is_pending: there is a pending step, bool; False at the start of an episode.
    """

    trace: Array
    obs: Array
    action: Array
    reward: Array
    is_pending: Array


def sarsa_lambda(
    config: SarsaLambdaConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes a Sarsa(lambda) agent.

        q += alpha (r + gamma q(s', a') - q(s, a)) e,  e the eligibility traces [S, A]

    Args:
      config: options; floats may be tracers.
      spec: description of the environment, with numbered states and discrete actions.
      average: mean over workers.
    """

    def init_state():
        table = q_table(config, spec)
        zero = jnp.int32(0)
        pending = PendingStep(jnp.zeros_like(table.q), zero, zero, jnp.float32(0), jnp.bool_(False))
        return initial_state(table, pending)

    def update_q(q, trace, index, td_target, is_due):
        raised = updated_trace(trace, index, config.trace, config.learning_rate)
        trace = jnp.where(is_due, raised, trace)
        td_error = jnp.where(is_due, td_target - q[index], 0.0)
        q = q + config.learning_rate * td_error * trace
        return q, trace, td_error_metric(td_error, is_due)

    def learn(state, step, noise):
        del noise
        q, last = state.params.q, state.episode
        td_target = last.reward + config.gamma * q[step.obs, step.action]
        index = last.obs, last.action
        q, trace, metric = update_q(q, last.trace, index, td_target, last.is_pending)
        trace = config.gamma * config.trace_lambda * trace
        done = step.terminated | step.truncated
        next_v = epsilon_greedy_value(q[step.next_obs], current_epsilon(config, state))
        td_target = td.td_target(step.reward, step.terminated, config.gamma, next_v)
        q, _, final_metric = update_q(q, trace, (step.obs, step.action), td_target, done)
        trace = jnp.where(done, 0.0, trace)
        pending = PendingStep(trace, step.obs, step.action, step.reward, ~done)
        metric = jax.tree.map(jnp.add, metric, final_metric)
        return state._replace(params=QTable(q), episode=pending), metric

    return tabular_agent(spec, init_state, learn, epsilon_greedy(config, spec), average=average)


def q_lambda(
    config: SarsaLambdaConfig, spec: EnvSpec, *, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Makes a Watkins's Q(lambda) agent.

        q += alpha (r + gamma max_a' q(s', a') - q(s, a)) e,  e the eligibility traces [S, A]

    The update is made before the next action is selected.

    Args:
      config: options; floats may be tracers.
      spec: description of the environment, with numbered states and discrete actions.
      average: mean over workers.
    """

    def init_state():
        table = q_table(config, spec)
        return initial_state(table, jnp.zeros_like(table.q))

    def learn(state, step, noise):
        del noise
        q, index = state.params.q, (step.obs, step.action)
        is_greedy = q[index] >= q[step.obs].max()
        trace = jnp.where(is_greedy, config.gamma * config.trace_lambda * state.episode, 0.0)
        trace = updated_trace(trace, index, config.trace, config.learning_rate)
        next_v = q[step.next_obs].max()
        td_error = td.td_target(step.reward, step.terminated, config.gamma, next_v) - q[index]
        q = q + config.learning_rate * td_error * trace
        trace = jnp.where(step.terminated | step.truncated, 0.0, trace)
        return state._replace(params=QTable(q), episode=trace), td_error_metric(td_error)

    return tabular_agent(spec, init_state, learn, epsilon_greedy(config, spec), average=average)
