"""Normalization of observations and rewards: `Agent -> Agent`.

The statistics are part of the agent's state. They change once per update, after it. During a
rollout and the update that learns from it they are constant, so PPO's first probability ratio is 1,
observations at time limits are normalized like the others, and evaluation changes nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.ops import moments as running
from rljax.ops import returns
from rljax.ops.observations import environment_obs, obs_structs, split_mask
from rljax.types import Agent, Array, EnvSpec, PyTree, RecurrentObs, identity

CLIP = 10.0


class NormalizedState(NamedTuple):
    """The state of a normalized agent.

    Attributes:
      agent: state of the inner agent.
      obs: moments of each array of the observations; () if they are not normalized.
      reward: moments of the discounted sums of rewards (`returns.discounted_sums`).
      running_return: discounted sums at the end of the last rollout, `[B]`.
    """

    agent: PyTree
    obs: PyTree
    reward: running.Moments
    running_return: Array


def normalized_by_config(
    agent: Agent, config: Any, spec: EnvSpec, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """Returns the agent with the normalization that `normalize_obs` and `normalize_reward` set."""
    return normalized(
        agent, spec, obs=config.normalize_obs, reward=config.normalize_reward, gamma=config.gamma,
        average=average,
    )  # fmt: skip


def normalizes(spec: EnvSpec) -> bool:
    """Whether the observations of an environment can be normalized; state indices cannot."""
    return not spec.num_states


def init_obs_moments(spec: EnvSpec) -> PyTree:
    """Returns the moments of no observations, one `Moments` for each array.

    `standardize_obs` with them divides bytes by 255 and leaves floats as they are. An action mask
    has no moments; None is in its place.
    """
    obs, _ = split_mask(spec, obs_structs(spec))

    def init(x):
        return running.init_moments(x.shape, 255.0 if x.dtype == jnp.uint8 else 1.0)

    return jax.tree.map(init, obs)


def _map_arrays(function: Callable[[running.Moments, Array], Any], moments: PyTree, obs: PyTree):
    """Applies a function to the moments and the values of each array; keeps an action mask."""

    def is_leaf(x):
        return x is None or isinstance(x, running.Moments)

    def apply(moments, x):
        return x if moments is None else function(moments, x)

    return jax.tree.map(apply, moments, obs, is_leaf=is_leaf)


def update_obs_moments(
    spec: EnvSpec, moments: PyTree, obs: PyTree, average: Callable[[PyTree], PyTree] = identity
) -> PyTree:
    """Merges observations `[..., *obs_shape]` into their running moments."""
    obs, _ = split_mask(spec, environment_obs(obs))
    return _map_arrays(lambda m, x: running.update_moments(m, x, average), moments, obs)


def standardize_obs(obs: PyTree, moments: PyTree, clip: float = CLIP) -> PyTree:
    """Returns observations standardized by `moments` and clipped to +-`clip`.

    The hidden state of a `RecurrentObs` and an action mask are unchanged.

    Example:
      >>> moments = running.Moments(jnp.float32(2.0), jnp.float32(4.0), jnp.float32(9.0))
      >>> standardize_obs(jnp.array([2.0, 4.0, 99.0]), moments)
      Array([ 0.,  1., 10.], dtype=float32)
    """
    if isinstance(obs, RecurrentObs):
        return obs._replace(obs=standardize_obs(obs.obs, moments, clip))
    return _map_arrays(lambda m, x: jnp.clip(running.standardize(x, m), -clip, clip), moments, obs)


def normalized(
    agent: Agent, spec: EnvSpec, *, obs: bool = True, reward: bool = True, gamma: Any = 0.99,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Normalizes the observations and rewards of an agent.

    Observations get mean 0 and variance 1. Rewards are divided by the standard deviation of their
    discounted sum, without subtracting a mean (Engstrom et al. 2020,
    https://arxiv.org/abs/2005.12729, section 3). Both are clipped to +-10. State indices are not
    observations to normalize and stay unchanged.

    The agent may be on- or off-policy. An agent with replay stores observations normalized by the
    statistics of the time of collection; its own option `normalize_obs` normalizes each batch by
    the present statistics instead. Bytes become floats, so such an agent for images is built with
    `spec._replace(obs_dtype="float32")`.

    Args:
      agent: the agent.
      spec: description of the environment.
      obs, reward: which of the two to normalize.
      gamma: discount of the sums of rewards.
      average: mean over workers, which share the statistics.

    Returns:
      An agent with state `NormalizedState`; `agent` itself if there is nothing to normalize.

    Example:
      >>> from rljax.agents.ppo import PPOConfig, ppo
      >>> spec = EnvSpec(obs_shape=(4,), num_actions=2)
      >>> agent = normalized(ppo(PPOConfig(), spec), spec, gamma=0.9)
    """
    obs = obs and normalizes(spec)
    if not (obs or reward):
        return agent

    def standardized(state, x):
        return standardize_obs(x, state.obs) if obs else x

    def init(key):
        obs_moments = init_obs_moments(spec) if obs else ()
        return NormalizedState(
            agent.init(key), obs_moments, running.init_moments(()), jnp.zeros(spec.num_envs)
        )

    def act(state, observation, noise):
        return agent.act(state.agent, standardized(state, observation), noise)

    def greedy(state, observation, key):
        return agent.greedy(state.agent, standardized(state, observation), key)

    def update(state, trajectory, key):
        inputs = trajectory._replace(
            obs=standardized(state, trajectory.obs),
            next_obs=standardized(state, trajectory.next_obs),
        )
        if reward:
            done = trajectory.terminated | trajectory.truncated
            scaled, moments, running_return = scale_rewards(
                trajectory.reward, done, gamma, state.reward, state.running_return, average
            )
            state = state._replace(reward=moments, running_return=running_return)
            inputs = inputs._replace(reward=scaled)
        agent_state, metrics = agent.update(state.agent, inputs, key)
        if obs:
            moments = update_obs_moments(spec, state.obs, trajectory.obs, average)
            state = state._replace(obs=moments)
        return state._replace(agent=agent_state), metrics

    return agent._replace(init=init, act=act, greedy=greedy, update=update)


def scale_rewards(
    reward: Array, done: Array, gamma: Any, moments: running.Moments, running_return: Array,
    average: Callable[[PyTree], PyTree] = identity,
) -> tuple[Array, running.Moments, Array]:  # fmt: skip
    """Divides rewards by the running standard deviation of their discounted sum, clipped to +-10.

    Args:
      reward: `[T, B]` floats.
      done: `[T, B]` bool, where an episode ends.
      gamma: discount of the sums.
      moments: moments of the discounted sums of all rewards so far.
      running_return: discounted sums before the first step, `[B]`.
      average: mean over workers.

    Returns:
      The scaled rewards `[T, B]`, and `moments` and `running_return` after the rollout.
    """
    sums, running_return = returns.discounted_sums(reward, done, gamma, running_return)
    moments = running.update_moments(moments, sums, average)
    scaled = reward / jnp.sqrt(moments.variance + 1e-8)
    return jnp.clip(scaled, -CLIP, CLIP), moments, running_return
