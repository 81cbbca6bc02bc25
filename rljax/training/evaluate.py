"""Policy evaluation: the first episodes of new environments, without learning."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.ops import random
from rljax.ops.precision import in_32_bits
from rljax.types import Agent, Array, Env, Key, PyTree, sample_one, unclipped_reward


class Evaluation(NamedTuple):
    """The first `k` episodes of each of `B` environments, in order.

    Attributes:
      returns: undiscounted returns, `[B, k]`; of the steps taken where unfinished.
      lengths: steps taken, `[B, k]` int32.
      finished: whether the episode ended within the limit of steps, `[B, k]` bool.
    """

    returns: Array
    lengths: Array
    finished: Array


@in_32_bits
def evaluate(
    agent: Agent, env: Env, state: PyTree, key: Key, episodes_per_env: int = 1,
    max_steps: int | None = None, greedy: bool = True,
    close: Callable[[PyTree], Any] | None = None,
) -> Evaluation:  # fmt: skip
    """Runs the first `episodes_per_env` episodes of every environment.

    The first k episodes of *each* environment count. Taking the first n episodes that finish
    would be biased toward short ones. The agent's state does not change.

    Args:
      agent: the agent.
      env: a batched environment that resets itself.
      state: state of the agent.
      key: random key.
      episodes_per_env: number of episodes of each environment, k.
      max_steps: limit of steps of each environment; by default `episodes_per_env` times its time
        limit, or times 10,000 if it has none.
      greedy: act with `agent.greedy`; otherwise sample with `agent.act`.
      close: called with the final states of the environments, such as `envs.host.close`, which
        closes environments on the host.

    Returns:
      The `Evaluation`, whose arrays have the shape `[B, k]`.
    """
    limit = max_steps or episodes_per_env * (env.spec.max_episode_steps or 10_000)
    reset_key, key = random.split(key)
    env_state, obs = env.reset(reset_key)
    env_index = jnp.arange(env.spec.num_envs)
    shape = (env.spec.num_envs, episodes_per_env)
    no_episodes = Evaluation(jnp.zeros(shape), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool))

    def is_unfinished(carry):
        time, *_, count, _ = carry
        return (time < limit) & (count < episodes_per_env).any()

    def step_once(carry):
        time, env_state, obs, count, episodes = carry
        act_key, env_key = random.split(jax.random.fold_in(key, time))
        if greedy:
            action = agent.greedy(state, obs, act_key)
        else:
            action, _ = agent.act(state, obs, sample_one(agent.sample_noise, act_key))
        noise = sample_one(env.sample_noise, env_key)
        env_state, step = env.step(env_state, action, noise)
        done = step.terminated | step.truncated
        # after its last episode an environment's index is out of bounds: its writes are dropped
        index = (env_index, count)
        episodes = Evaluation(
            episodes.returns.at[index].add(unclipped_reward(step), mode="drop"),
            episodes.lengths.at[index].add(1, mode="drop"),
            episodes.finished.at[index].set(done, mode="drop"),
        )
        return time + 1, env_state, step.obs, count + done, episodes

    carry = (jnp.int32(0), env_state, obs, jnp.zeros(shape[0], jnp.int32), no_episodes)
    _, env_state, *_, episodes = jax.lax.while_loop(is_unfinished, step_once, carry)
    if close is not None:
        close(env_state)
    return episodes
