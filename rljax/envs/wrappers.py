"""Environments made of environments: `Env -> Env`."""

import jax
import jax.numpy as jnp

from rljax.types import Env, Step, drawn


def auto_reset(env: Env) -> Env:
    """Makes an environment that stops into one that resets itself.

    `env.step` must not reset; where an episode ends, the state and observation to act on next
    are fresh ones, and `next_obs` stays the one that was reached. Fresh states are part of what
    `draw` draws, each used at most once: a rollout makes all of them in one vectorised call
    instead of one a step inside its loop.
    """

    def draw(key, num_steps):
        step_key, reset_key = jax.random.split(key)
        fresh = jax.vmap(env.reset)(jax.random.split(reset_key, num_steps))
        return env.draw(step_key, num_steps), fresh

    def step(state, action, key):
        noise, (fresh_state, fresh_obs) = drawn(draw, key)
        state, step = env.step(state, action, noise)
        done = step.terminated | step.truncated

        def fresh(new, old):
            return jnp.where(done, new, old)

        state = jax.tree.map(fresh, fresh_state, state)
        return state, step._replace(obs=jax.tree.map(fresh, fresh_obs, step.next_obs))

    return env._replace(step=step, draw=draw)


def time_limit(env: Env, max_episode_steps: int) -> Env:
    """Truncates episodes after `max_episode_steps` steps. Wrap before `auto_reset`.

    A step that terminates is not also truncated.
    """
    if max_episode_steps < 1:
        raise ValueError(f"`max_episode_steps` is {max_episode_steps}, but it must be at least 1.")

    def reset(key):
        state, obs = env.reset(key)
        return (state, jnp.int32(0)), obs

    def step(state, action, key):
        state, time = state
        state, step = env.step(state, action, key)
        truncated = (step.truncated | (time + 1 >= max_episode_steps)) & ~step.terminated
        return (state, time + 1), step._replace(truncated=truncated)

    render = env.render and (lambda state: env.render(state[0]))  # type: ignore[misc]
    spec = env.spec._replace(max_episode_steps=max_episode_steps)
    return env._replace(spec=spec, reset=reset, step=step, render=render)


def record_episodes(env: Env) -> Env:
    """Adds `episode_return`, `episode_length` to `info`: valid where the episode just ended.

    Works on one environment and on a batch. The returns are the environment's own rewards:
    whatever scales them for learning sits in the agent.
    """

    def reset(key):
        state, obs = env.reset(key)
        zero = jnp.zeros((env.spec.num_envs,) if env.spec.num_envs > 1 else (), jnp.float32)
        return (state, zero, zero.astype(jnp.int32)), obs

    def step(state, action, key):
        state, total, length = state
        state, step = env.step(state, action, key)
        total, length = total + step.reward, length + 1
        done = step.terminated | step.truncated
        info = {**step.info, "episode_return": total, "episode_length": length}
        state = (state, jnp.where(done, 0.0, total), jnp.where(done, 0, length))
        return state, step._replace(info=info)

    render = env.render and (lambda state: env.render(state[0]))  # type: ignore[misc]
    return env._replace(reset=reset, step=step, render=render)


def batched(env: Env, num_envs: int) -> Env:
    """`num_envs` copies side by side: every array gains a leading axis `[B]`.

    `draw(key, T)` draws `[T, B, ...]` for all of them; copies share nothing.
    """
    if num_envs < 1:
        raise ValueError(f"`num_envs` is {num_envs}, but it must be at least 1.")

    def reset(key):
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def draw(key, num_steps):
        keys = jax.random.split(key, num_envs)
        return jax.vmap(lambda key: env.draw(key, num_steps), out_axes=1)(keys)

    def step(state, action, key) -> tuple:
        state, step = jax.vmap(env.step)(state, action, drawn(draw, key))
        return state, Step(*step)

    return env._replace(
        spec=env.spec._replace(num_envs=num_envs), reset=reset, step=step, draw=draw
    )
