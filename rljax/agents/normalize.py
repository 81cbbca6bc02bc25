"""Normalization of observations and rewards: `Agent -> Agent`.

The statistics are part of the agent's state. They change once per update, after it. During a
rollout and the update that learns from it they are constant, so PPO's first probability ratio is 1,
observations at time limits are normalized like the others, and evaluation changes nothing. Agents
with replay store observations unnormalized and normalize samples: see `agents/off_policy.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from rljax.ops import moments as running
from rljax.ops import returns
from rljax.types import Agent, Array, EnvSpec, PyTree, RecurrentObs, Transition, identity

CLIP = 10.0


class NormalizedState(NamedTuple):
    """The state of a normalized agent.

    Attributes:
      agent: state of the inner agent.
      obs: moments of the observations.
      reward: moments of the discounted sums of rewards (`returns.discounted_sums`).
      running_return: discounted sums at the end of the last rollout, `[B]`.
    """

    agent: PyTree
    obs: running.Moments
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


def standardize_obs(obs: PyTree, moments: running.Moments) -> PyTree:
    """Returns observations standardized by `moments` and clipped to +-10.

    The hidden state of a `RecurrentObs` is unchanged.

    Example:
      >>> moments = running.Moments(jnp.float32(2.0), jnp.float32(4.0), jnp.float32(9.0))
      >>> standardize_obs(jnp.array([2.0, 4.0, 99.0]), moments)
      Array([ 0.,  1., 10.], dtype=float32)
    """
    if isinstance(obs, RecurrentObs):
        return obs._replace(obs=standardize_obs(obs.obs, moments))
    return jnp.clip(running.standardize(obs, moments), -CLIP, CLIP)


def normalized(
    agent: Agent, spec: EnvSpec, *, obs: bool = True, reward: bool = True, gamma: Any = 0.99,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Normalizes the observations and rewards of an agent.

    Observations get mean 0 and variance 1. Rewards are divided by the standard deviation of their
    discounted sum, without subtracting a mean (Engstrom et al. 2020,
    https://arxiv.org/abs/2005.12729, section 3). Both are clipped to +-10.

    Args:
      agent: the agent.
      spec: description of the environment.
      obs, reward: which of the two to normalize.
      gamma: discount of the sums of rewards.
      average: mean over workers, which share the statistics.

    Returns:
      An agent with state `NormalizedState`; `agent` itself if both are off.

    Example:
      >>> from rljax.agents.ppo import PPOConfig, ppo
      >>> spec = EnvSpec(obs_shape=(4,), num_actions=2)
      >>> agent = normalized(ppo(PPOConfig(), spec), spec, gamma=0.9)
    """
    if not (obs or reward):
        return agent

    def standardized(state, x):
        return standardize_obs(x, state.obs) if obs else x

    def init(key):
        obs_moments, reward_moments = (running.init_moments(x) for x in (spec.obs_shape, ()))
        return NormalizedState(
            agent.init(key), obs_moments, reward_moments, jnp.zeros(spec.num_envs)
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
            scaled, state = scale_rewards(state, trajectory, gamma, average)
            inputs = inputs._replace(reward=scaled)
        agent_state, metrics = agent.update(state.agent, inputs, key)
        if obs:
            samples = trajectory.obs
            samples = samples.obs if isinstance(samples, RecurrentObs) else samples
            state = state._replace(obs=running.update_moments(state.obs, samples, average))
        return state._replace(agent=agent_state), metrics

    return agent._replace(init=init, act=act, greedy=greedy, update=update)


def scale_rewards(
    state: NormalizedState, trajectory: Transition, gamma: Any, average: Callable[[PyTree], PyTree]
) -> tuple[Array, NormalizedState]:
    """Returns the scaled rewards `[T, B]`, and the state with the new reward statistics."""
    done = trajectory.terminated | trajectory.truncated
    sums, running_return = returns.discounted_sums(
        trajectory.reward, done, gamma, state.running_return
    )
    moments = running.update_moments(state.reward, sums, average)
    scaled = trajectory.reward / jnp.sqrt(moments.variance + 1e-8)
    state = state._replace(reward=moments, running_return=running_return)
    return jnp.clip(scaled, -CLIP, CLIP), state
