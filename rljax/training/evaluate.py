"""How well a policy does, without learning: the first episodes of fresh environments."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.types import Agent, Array, Env, Key, PyTree, sample_one


class Evaluation(NamedTuple):
    """Episodes in the order in which each environment finished them."""

    returns: Array  # [B, k], undiscounted; of the part played where not finished
    lengths: Array  # [B, k] int32
    finished: Array  # [B, k] bool


def evaluate(
    agent: Agent, env: Env, state: PyTree, key: Key, episodes_per_env: int = 1,
    max_steps: int | None = None, greedy: bool = True,
) -> Evaluation:  # fmt: skip
    """Plays the first `episodes_per_env` episodes of every environment to their ends.

    Counting the first k of *each* keeps short episodes from being over-counted, as they are when
    the first n to finish are taken. Nothing of the agent's state moves. Jit it, vmap it over
    states and keys.

    Args:
      env: batched and self-resetting.
      state: the agent's.
      max_steps: of each environment; default `episodes_per_env` times its time limit (10,000
        where it has none). What has not finished by then is marked so.
      greedy: by `agent.greedy`; otherwise by `agent.act`, exploring.
    """
    limit = max_steps or episodes_per_env * (env.spec.max_episode_steps or 10_000)
    reset_key, key = jax.random.split(key)
    env_state, obs = env.reset(reset_key)
    rows = jnp.arange(env.spec.num_envs)
    shape = (env.spec.num_envs, episodes_per_env)
    nothing = Evaluation(jnp.zeros(shape), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool))

    def unfinished(carry):
        time, *_, count, _ = carry
        return (time < limit) & (count < episodes_per_env).any()

    def play_once(carry):
        time, env_state, obs, count, seen = carry
        act_key, env_key = jax.random.split(jax.random.fold_in(key, time))
        if greedy:
            action = agent.greedy(state, obs, act_key)
        else:
            action, _ = agent.act(state, obs, sample_one(agent.sample_noise, act_key))
        noise = sample_one(env.sample_noise, env_key)
        env_state, step = env.step(env_state, action, noise)
        done = step.terminated | step.truncated
        # an environment past its last episode has an index out of bounds: its writes are dropped
        at = (rows, count)
        seen = Evaluation(
            seen.returns.at[at].add(step.reward, mode="drop"),
            seen.lengths.at[at].add(1, mode="drop"),
            seen.finished.at[at].set(done, mode="drop"),
        )
        return time + 1, env_state, step.obs, count + done, seen

    start = (jnp.int32(0), env_state, obs, jnp.zeros(shape[0], jnp.int32), nothing)
    return jax.lax.while_loop(unfinished, play_once, start)[-1]
