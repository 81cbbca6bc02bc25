"""Normalisation of observations and rewards: `Agent -> Agent`.

The statistics live in the agent's state. They stand still during a rollout and during the update
that learns from it, and move once after it, so the policy that is updated is the policy that acted
(the first ratio of PPO is one), the observation at a time limit is seen with the same eyes as the
others, evaluation moves nothing, and whoever saves the agent saves them. Agents that learn from
replay keep observations as they were, and standardise what they draw: see `agents/dqn.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from rljax.ops import moments as running
from rljax.ops import returns
from rljax.types import Agent, Array, EnvSpec, PyTree, RecurrentObs, identity

CLIP = 10.0


class NormalizedState(NamedTuple):
    agent: PyTree
    obs: running.Moments
    reward: running.Moments  # of the discounted sum of rewards, see `ops.returns`
    running_return: Array  # [B]


def normalized_by_config(
    agent: Agent, config: Any, spec: EnvSpec, average: Callable[[PyTree], PyTree] = identity
) -> Agent:
    """The agent behind the normalisation that its config asks for."""
    return normalized(
        agent, spec, obs=config.normalize_obs, reward=config.normalize_reward, gamma=config.gamma,
        average=average,
    )  # fmt: skip


def standardized(moments: running.Moments, obs: PyTree) -> PyTree:
    """Observations in standard deviations from their mean, clipped to +-10; a memory passes."""
    if isinstance(obs, RecurrentObs):
        return obs._replace(obs=standardized(moments, obs.obs))
    return jnp.clip(running.standardize(obs, moments), -CLIP, CLIP)


def normalized(
    agent: Agent, spec: EnvSpec, *, obs: bool = True, reward: bool = True, gamma: Any = 0.99,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Shows an agent observations of mean 0 and variance 1, and rewards over a scale.

    Rewards are divided by the standard deviation of their discounted sum, without subtracting a
    mean (Engstrom et al. 2020, section 3); both are clipped to +-10. The moments are those of all
    workers together. Returns `agent` itself where both are off.
    """
    if not (obs or reward):
        return agent

    def see(moments, x):
        return standardized(moments, x) if obs else x

    def init(key):
        return NormalizedState(
            agent.init(key),
            running.init_moments(spec.obs_shape),
            running.init_moments(()),
            jnp.zeros(spec.num_envs),
        )

    def act(state, observation, key):
        return agent.act(state.agent, see(state.obs, observation), key)

    def greedy(state, observation, key):
        return agent.greedy(state.agent, see(state.obs, observation), key)

    def update(state, trajectory, key):
        reward_moments, running_return = state.reward, state.running_return
        seen = trajectory._replace(
            obs=see(state.obs, trajectory.obs), next_obs=see(state.obs, trajectory.next_obs)
        )
        if reward:
            done = trajectory.terminated | trajectory.truncated
            sums, running_return = returns.discounted_sums(
                trajectory.reward, done, gamma, running_return
            )
            reward_moments = running.update_moments(reward_moments, sums, average)
            scaled = trajectory.reward / jnp.sqrt(reward_moments.variance + 1e-8)
            seen = seen._replace(reward=jnp.clip(scaled, -CLIP, CLIP))
        agent_state, metrics = agent.update(state.agent, seen, key)
        obs_moments = state.obs
        if obs:
            shown = trajectory.obs
            shown = shown.obs if isinstance(shown, RecurrentObs) else shown
            obs_moments = running.update_moments(obs_moments, shown, average)
        return NormalizedState(agent_state, obs_moments, reward_moments, running_return), metrics

    return agent._replace(init=init, act=act, greedy=greedy, update=update)
