"""Prediction of state values: TD(0), n-step TD, TD(lambda), true online TD(lambda), lambda-return.

Sutton and Barto (2018), eq. 6.2, eq. 7.2, eq. 12.7, section 12.5 and eq. 12.3. The policy to
evaluate is given and fixed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rljax.agents.acting import Acting
from rljax.agents.tabular.common import (
    TableConfig,
    VTable,
    initial_state,
    tabular_agent,
    td_error_metric,
    v_table,
)
from rljax.agents.tabular.n_step import (
    append,
    clear_if,
    empty_window,
    n_step_returns,
    update_entries,
)
from rljax.agents.tabular.traces import updated_trace
from rljax.config import config, option
from rljax.ops import random
from rljax.ops.observations import split_mask, state_index
from rljax.ops.td import td_target
from rljax.types import Agent, Array, EnvSpec, PyTree, Transition, identity, sample_one


@config
class NStepTDConfig(TableConfig):
    """Options of n-step TD."""

    n_step: int = option(4, "number of rewards in an n-step return", low=1)


@config
class TrueOnlineTDLambdaConfig(TableConfig):
    """Options of true online TD(lambda) and of the lambda-return algorithm."""

    trace_lambda: float = option(0.8, "trace-decay parameter lambda", low=0, high=1)


@config
class TDLambdaConfig(TrueOnlineTDLambdaConfig):
    """Options of TD(lambda)."""

    trace: str = option(
        "accumulating", "kind of eligibility trace",
        choices=("accumulating", "replacing", "dutch"),
    )  # fmt: skip


def follow_policy(spec: EnvSpec, policy: Any) -> Acting:
    """Acts by a table of action probabilities `[S, A]`; None is the uniform policy.

    Where observations have an action mask, the probabilities are those given that the action is
    legal.

    Raises:
      ValueError: the table has another shape, or a row is not a probability distribution.
    """
    shape = (spec.num_states, spec.num_actions)
    if policy is None:
        policy = jnp.full(shape, 1 / max(spec.num_actions, 1))
    elif np.shape(policy) != shape:
        raise ValueError(
            f"`policy` has shape {np.shape(policy)}, but {spec.env_id} needs {shape}: give the "
            "probability of each action in each state."
        )
    else:
        table = np.asarray(policy)
        wrong = (table < 0).any(axis=-1) | ~np.isclose(table.sum(axis=-1), 1, atol=1e-5)
        if wrong.any():
            state = int(wrong.argmax())
            raise ValueError(
                f"`policy` is {table[state].tolist()} in state {state}, but it must be a "
                "probability distribution: no entry below 0, and a sum of 1."
            )
    probabilities = jnp.asarray(policy, jnp.float32)
    cumulative = jnp.cumsum(probabilities, axis=-1)

    def sample_noise(key, num_steps):
        return random.uniform(key, (num_steps, spec.num_envs))

    def act(state, obs, noise):
        del state
        index, mask = state_index(spec, obs), split_mask(spec, obs)[1]
        if mask is None:
            thresholds = cumulative[index][:, :-1]
        else:
            legal = jnp.cumsum(jnp.where(mask, probabilities[index], 0.0), axis=-1)
            thresholds = legal[:, :-1] / legal[:, -1:]
        return (noise[:, None] >= thresholds).sum(axis=-1).astype(jnp.int32), ()

    def greedy(state, obs, key):
        return act(state, obs, sample_one(sample_noise, key))[0]

    return Acting(sample_noise, act, greedy)


def td(
    config: TableConfig, spec: EnvSpec, *, policy: Any = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a TD(0) agent (eq. 6.2), or n-step TD if the config has `n_step` (eq. 7.2).

        G = r_1 + gamma r_2 + ... + gamma^(n-1) r_n + gamma^n v(s_n)
        v(s_0) += alpha (G - v(s_0))

    Args:
      config: options; floats may be tracers.
      spec: description of the environment, with numbered states and discrete actions.
      policy: the policy to evaluate, probabilities `[S, A]`; uniform by default.
      average: mean over workers.

    Example:
      >>> import jax, rljax
      >>> env = rljax.build("rljax/RandomWalk", num_envs=1)
      >>> agent = td(TableConfig(gamma=1.0), env.spec)
      >>> agent.init(jax.random.key(0)).params.v.shape
      (21,)
    """
    n = getattr(config, "n_step", 1)

    def init_state():
        return initial_state(v_table(config, spec), empty_window(n))

    def learn(state, step, noise):
        del noise
        v, window = state.params.v, append(state.episode, step)
        done = step.terminated | step.truncated
        next_v = jnp.where(step.terminated, 0.0, v[step.next_obs])
        targets = n_step_returns(window.reward, next_v, config.gamma)
        is_due = window.is_filled & (done | (jnp.arange(n) == 0))
        v, metric = update_entries(v, window.obs, targets, is_due, config.learning_rate)
        return state._replace(params=VTable(v), episode=clear_if(done, window)), metric

    return tabular_agent(spec, init_state, learn, follow_policy(spec, policy), average=average)


def n_step_td(
    config: NStepTDConfig, spec: EnvSpec, *, policy: Any = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an n-step TD agent, with the arguments of `td`."""
    return td(config, spec, policy=policy, average=average)


def td_lambda(
    config: TDLambdaConfig, spec: EnvSpec, *, policy: Any = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a TD(lambda) agent (section 12.2), with the arguments of `td`.

    v += alpha (r + gamma v(s') - v(s)) z,  z the eligibility traces [S]
    """

    def init_state():
        table = v_table(config, spec)
        return initial_state(table, jnp.zeros_like(table.v))

    def learn(state, step, noise):
        del noise
        v = state.params.v
        trace = updated_trace(state.episode, step.obs, config.trace, config.learning_rate)
        td_error = _td_error(v, step, config.gamma)
        v = v + config.learning_rate * td_error * trace
        trace = _decayed(trace, step, config.gamma * config.trace_lambda)
        return state._replace(params=VTable(v), episode=trace), td_error_metric(td_error)

    return tabular_agent(spec, init_state, learn, follow_policy(spec, policy), average=average)


class TrueOnlineEpisode(NamedTuple):
    """What true online TD(lambda) stores about an episode.

    Attributes:
      trace: dutch traces `[S]`, decayed.
      old_value: V_old, the value of the current state before the last update.
    """

    trace: Array
    old_value: Array


def true_online_td_lambda(
    config: TrueOnlineTDLambdaConfig, spec: EnvSpec, *, policy: Any = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a true online TD(lambda) agent (section 12.5), with the arguments of `td`.

        z <- gamma lambda z + (1 - alpha gamma lambda z(s)) x,     x = 1 at s and 0 elsewhere
        v <- v + alpha (delta + v(s) - V_old) z - alpha (v(s) - V_old) x

    After every step v equals that of the online lambda-return algorithm (section 12.4), which
    makes all updates of the episode again at each step. Van Seijen and Sutton 2014.
    """

    def init_state():
        table = v_table(config, spec)
        return initial_state(table, TrueOnlineEpisode(jnp.zeros_like(table.v), jnp.float32(0)))

    def learn(state, step, noise):
        del noise
        v, alpha = state.params.v, config.learning_rate
        without_visit = state.episode.trace.at[step.obs].multiply(1 - alpha)
        trace = without_visit.at[step.obs].add(1.0)
        # at the first step of an episode V_old is not defined, and `without_visit` is 0
        value_change = v[step.obs] - state.episode.old_value
        td_error = _td_error(v, step, config.gamma)
        new_v = v + alpha * (td_error * trace + value_change * without_visit)
        trace = _decayed(trace, step, config.gamma * config.trace_lambda)
        episode = TrueOnlineEpisode(trace, v[step.next_obs])
        return state._replace(params=VTable(new_v), episode=episode), td_error_metric(td_error)

    return tabular_agent(spec, init_state, learn, follow_policy(spec, policy), average=average)


class OfflineEpisode(NamedTuple):
    """What the offline lambda-return algorithm stores about an episode.

    Attributes:
      trace: dutch traces `[S]`, decayed.
      change: change of the values at the end of the episode, from its steps so far, `[S]`.
    """

    trace: Array
    change: Array


def lambda_return(
    config: TrueOnlineTDLambdaConfig, spec: EnvSpec, *, policy: Any = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an offline lambda-return agent (section 12.1, eq. 12.4), with the arguments of `td`.

    At the end of an episode each visited state, in the order of the visits, moves toward its
    lambda-return, computed with the values before the episode. The changes are accumulated during
    the episode with dutch traces, which is equal and needs no stored trajectory. With several
    environments, episodes that end in the others change the values in the meantime.
    """

    def init_state():
        table = v_table(config, spec)
        zeros = jnp.zeros_like(table.v)
        return initial_state(table, OfflineEpisode(zeros, zeros))

    def learn(state, step, noise):
        del noise
        v, alpha = state.params.v, config.learning_rate
        trace = updated_trace(state.episode.trace, step.obs, "dutch", alpha)
        td_error = _td_error(v, step, config.gamma)
        change = state.episode.change.at[step.obs].multiply(1 - alpha) + alpha * td_error * trace
        done = step.terminated | step.truncated
        v = v + jnp.where(done, change, 0.0)
        change = jnp.where(done, 0.0, change)
        trace = _decayed(trace, step, config.gamma * config.trace_lambda)
        episode = OfflineEpisode(trace, change)
        return state._replace(params=VTable(v), episode=episode), td_error_metric(td_error)

    return tabular_agent(spec, init_state, learn, follow_policy(spec, policy), average=average)


def _td_error(v: Array, step: Transition, gamma: Any) -> Array:
    return td_target(step.reward, step.terminated, gamma, v[step.next_obs]) - v[step.obs]


def _decayed(trace: Array, step: Transition, decay: Any) -> Array:
    """Returns the traces after their decay, or zeros at the end of an episode."""
    return jnp.where(step.terminated | step.truncated, 0.0, decay * trace)
