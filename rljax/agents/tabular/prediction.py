"""What a policy is worth: TD(0), n-step TD, TD(lambda), true online TD(lambda), lambda returns.

Sutton and Barto 2018, eq. 6.2, 7.2, 12.7, section 12.5 and eq. 12.3. The policy is given and never
changes; the table is one of state values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.agents.tabular.common import Acting, TableConfig, TableState, VTable, error_of, tabular
from rljax.agents.tabular.n_step import correct_each, empty_window, n_step_returns, slide
from rljax.agents.tabular.traces import marked
from rljax.config import config, option
from rljax.ops import td as ops
from rljax.types import Agent, Array, EnvSpec, PyTree, Shared, identity, sample_one


@config
class NStepTDConfig(TableConfig):
    n_step: int = option(4, "rewards of a return (n); 1 is TD(0)", low=1)


@config
class TrueOnlineTDLambdaConfig(TableConfig):
    trace_lambda: float = option(0.8, "lambda; 0 is TD(0), 1 Monte Carlo", low=0, high=1)


@config
class TDLambdaConfig(TrueOnlineTDLambdaConfig):
    trace: str = option(
        "accumulating", "how a visit marks its state",
        choices=("accumulating", "replacing", "dutch"),
    )  # fmt: skip


def following(spec: EnvSpec, policy: Any) -> Acting:
    """Acts by a table of probabilities `[S, A]`; None is the uniform policy.

    Raises:
      ValueError: it is not of that shape, or a row is no distribution.
    """
    shape = (spec.num_states, spec.num_actions)
    if policy is None:
        policy = jnp.full(shape, 1 / max(spec.num_actions, 1))
    elif np.shape(policy) != shape:
        raise ValueError(
            f"`policy` has the shape {np.shape(policy)}, but {spec.env_id} needs {shape}: give the "
            "probability of each action in each state."
        )
    else:
        numbers = np.asarray(policy)
        wrong = (numbers < 0).any(axis=-1) | ~np.isclose(numbers.sum(axis=-1), 1, atol=1e-5)
        if wrong.any():
            state = int(wrong.argmax())
            raise ValueError(
                f"`policy` is {numbers[state].tolist()} in state {state}, but it must be a "
                "distribution: no probability below 0, and a sum of 1."
            )
    below = jnp.cumsum(jnp.asarray(policy, jnp.float32), axis=-1)[:, :-1]

    def sample_noise(key, num_steps):
        return jax.random.uniform(key, (num_steps, spec.num_envs))

    def act(state, obs, noise):
        del state
        return (noise[:, None] >= below[obs]).sum(axis=-1).astype(jnp.int32), ()

    def greedy(state, obs, key):
        return act(state, obs, sample_one(sample_noise, key))[0]

    return Acting(sample_noise, act, greedy)


def td(
    config: TableConfig, spec: EnvSpec, *, policy: Any = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a TD(0) agent, eq. 6.2, or n-step TD where the config has `n_step`, eq. 7.2.

    Args:
      config: floats may be tracers.
      spec: of the environment that it will see.
      policy: `[S, A]`, the probability of each action in each state; default uniform.
      average: over workers.
    """
    n = getattr(config, "n_step", 1)

    def begin():
        return TableState(_values(config, spec), Shared(jnp.int32(0)), empty_window(n))

    def learn(state, step, noise):
        del noise
        v, window = state.params.v, slide(state.episode, step)
        ended = step.terminated | step.truncated
        value = jnp.where(step.terminated, 0.0, v[step.next_obs])
        targets = n_step_returns(window.reward, value, config.gamma)
        due = window.there & (ended | (jnp.arange(n) == 0))
        v, error = correct_each(v, window.obs, targets, due, config.learning_rate)
        window = window._replace(size=jnp.where(ended, 0, window.size))
        return state._replace(params=VTable(v), episode=window), error

    return tabular(spec, begin, learn, following(spec, policy), average=average)


def n_step_td(
    config: NStepTDConfig, spec: EnvSpec, *, policy: Any = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an n-step TD agent: see `td`."""
    return td(config, spec, policy=policy, average=average)


def td_lambda(
    config: TDLambdaConfig, spec: EnvSpec, *, policy: Any = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a TD(lambda) agent: `v += learning_rate (r + gamma v(s') - v(s)) e`; see `td`."""

    def begin():
        table = _values(config, spec)
        return TableState(table, Shared(jnp.int32(0)), jnp.zeros_like(table.v))

    def learn(state, step, noise):
        del noise
        v = state.params.v
        trace = marked(state.episode, step.obs, config.trace, config.learning_rate)
        error = _td_error(v, step, config.gamma)
        v = v + config.learning_rate * error * trace
        trace = _decayed(trace, step, config.gamma * config.trace_lambda)
        return state._replace(params=VTable(v), episode=trace), error_of(error)

    return tabular(spec, begin, learn, following(spec, policy), average=average)


class TrueOnline(NamedTuple):
    trace: Array  # [S]
    value: Array  # of the present state, as it was before the last correction


def true_online_td_lambda(
    config: TrueOnlineTDLambdaConfig, spec: EnvSpec, *, policy: Any = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a true online TD(lambda) agent (van Seijen and Sutton 2014); see `td`.

    At every step the table is what an on-line lambda-return algorithm, with all rewards so far
    looked through again, would have made of it.
    """

    def begin():
        table = _values(config, spec)
        episode = TrueOnline(jnp.zeros_like(table.v), jnp.float32(0))
        return TableState(table, Shared(jnp.int32(0)), episode)

    def learn(state, step, noise):
        del noise
        v, rate = state.params.v, config.learning_rate
        earlier = state.episode.trace.at[step.obs].multiply(1 - rate)  # 0 in a first step
        trace = earlier.at[step.obs].add(1.0)
        moved = v[step.obs] - state.episode.value  # by the correction of the step before
        error = _td_error(v, step, config.gamma)
        new = v + rate * (error * trace + moved * earlier)
        trace = _decayed(trace, step, config.gamma * config.trace_lambda)
        state = state._replace(params=VTable(new), episode=TrueOnline(trace, v[step.next_obs]))
        return state, error_of(error)

    return tabular(spec, begin, learn, following(spec, policy), average=average)


class Offline(NamedTuple):
    trace: Array  # [S]
    change: Array  # [S] what the episode so far will have changed


def lambda_return(
    config: TrueOnlineTDLambdaConfig, spec: EnvSpec, *, policy: Any = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes an off-line lambda-return agent, eq. 12.3 and 12.4; see `td`.

    After an episode each of its states, the first one first, moves towards its lambda-return, all
    of which are of the table before. An error moves a state by what all visits to it so far
    weigh, and a visit takes a learning rate's part of what the earlier ones did: both are known on
    the way, so that the episode itself need not be kept. Other environments that end meanwhile
    change the table under it.
    """

    def begin():
        table = _values(config, spec)
        nothing = jnp.zeros_like(table.v)
        return TableState(table, Shared(jnp.int32(0)), Offline(nothing, nothing))

    def learn(state, step, noise):
        del noise
        v, rate = state.params.v, config.learning_rate
        trace = marked(state.episode.trace, step.obs, "dutch", rate)
        error = _td_error(v, step, config.gamma)
        change = state.episode.change.at[step.obs].multiply(1 - rate) + rate * error * trace
        ended = step.terminated | step.truncated
        v = v + jnp.where(ended, change, 0.0)
        change = jnp.where(ended, 0.0, change)
        trace = _decayed(trace, step, config.gamma * config.trace_lambda)
        state = state._replace(params=VTable(v), episode=Offline(trace, change))
        return state, error_of(error)

    return tabular(spec, begin, learn, following(spec, policy), average=average)


def _values(config: TableConfig, spec: EnvSpec) -> VTable:
    return VTable(jnp.full(spec.num_states, config.initial_value, jnp.float32))


def _td_error(v: Array, step: Any, gamma: Any) -> Array:
    return ops.td_target(step.reward, step.terminated, gamma, v[step.next_obs]) - v[step.obs]


def _decayed(trace: Array, step: Any, decay: Any) -> Array:
    return jnp.where(step.terminated | step.truncated, 0.0, decay * trace)
