"""Tiny environments and an agent of which everything is known beforehand."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import RunConfig, config, option
from rljax.types import Agent, Env, EnvSpec, PyTree, Step, Transition


def restarting(env: Env) -> Env:
    """Resets an environment where an episode ends, in the plainest way; tracers may be inside."""

    def step(state, action, key):
        step_key, reset_key = jax.random.split(key)
        state, step = env.step(state, action, step_key)
        done = step.terminated | step.truncated
        old, new = (state, step.next_obs), env.reset(reset_key)
        state, obs = jax.tree.map(lambda x, y: jnp.where(done, y, x), old, new)
        return state, step._replace(obs=obs)

    return env._replace(step=step)


CONSTANT, OBSERVED, DELAYED, ARM, MATCH = range(5)


class Place(NamedTuple):
    time: Any
    sign: Any


def probe(kind, length, terminates=True, numbered=False) -> Env:
    """The probe environments of CORRECTNESS K57, and worlds of one state; arguments may be tracers.

    CONSTANT: reward 1, one observation; OBSERVED: the reward is the observation, +-1; DELAYED:
    reward 0, then 1, and the time is observed; ARM: +1 for action 1, -1 for action 0; MATCH: +1
    where the action has the sign that is observed. Episodes end after `length` steps, by
    termination or else by a time limit. Numbered: -1, 0 and 1 are observed as states 0, 1 and 2.
    """
    spec = EnvSpec(obs_shape=(1,), num_actions=2, env_id="probe")
    if numbered:
        spec = spec._replace(obs_shape=(), num_states=3)

    def look(place):
        zero = jnp.float32(0)
        time = place.time.astype(jnp.float32)
        seen = jnp.stack([zero, place.sign, time, zero, place.sign])[kind]
        return jnp.clip(seen + 1, 0, 2).astype(jnp.int32) if numbered else seen[None]

    def reset(key):
        place = Place(jnp.int32(0), jnp.where(jax.random.bernoulli(key), 1.0, -1.0))
        return place, look(place)

    def step(place, action, key):
        del key
        chosen = 2.0 * action - 1.0
        rewards = [1.0, place.sign, place.time, chosen, chosen * place.sign]
        reward = jnp.stack([jnp.float32(x) for x in rewards])[kind]
        place = place._replace(time=place.time + 1)
        done, terminates_ = place.time >= length, jnp.asarray(terminates)
        obs = look(place)
        return place, Step(obs, reward, done & terminates_, done & ~terminates_, obs)

    return restarting(Env(spec, reset, step))


class Walk(NamedTuple):
    position: Any  # [3]
    time: Any
    scale: Any  # of rewards; it outlives episodes


def walk(continuous=False) -> Env:
    """Three noisy coordinates, pushed by the action; ends by death and by a time limit of 5."""
    spec = EnvSpec(obs_shape=(3,), num_actions=3, max_episode_steps=5, env_id="walk")
    if continuous:
        spec = spec._replace(num_actions=0, action_shape=(2,), action_low=-2.0, action_high=1.0)

    def fresh(key, scale):
        walk = Walk(0.5 * jax.random.normal(key, (3,)), jnp.int32(0), scale)
        return walk, walk.position

    def step(walk, action, key):
        move_key, reset_key = jax.random.split(key)
        push = action.sum() if continuous else action.astype(jnp.float32) - 1.0
        noise = 0.3 * jax.random.normal(move_key, (3,))
        position = 0.8 * walk.position + 0.3 * push + noise
        moved = Walk(position, walk.time + 1, walk.scale)
        terminated = position[0] > 0.9
        truncated = (moved.time >= 5) & ~terminated
        old, new = (moved, position), fresh(reset_key, walk.scale)
        state, obs = jax.tree.map(lambda x, y: jnp.where(terminated | truncated, y, x), old, new)
        reward = walk.scale * (position[1] + 0.1 * push)
        return state, Step(obs, reward, terminated, truncated, position)

    return Env(spec, lambda key: fresh(key, jnp.float32(1.0)), step)


def circle() -> Env:
    """Six numbered states in a circle, walked with noise; ends by death and by a limit of 5."""
    spec = EnvSpec((), num_actions=3, num_states=6, max_episode_steps=5, env_id="circle")

    def fresh(key, scale):
        place = jax.random.randint(key, (), 0, 6)
        return Walk(place, jnp.int32(0), scale), place

    def step(walk, action, key):
        move_key, reset_key = jax.random.split(key)
        slip = jax.random.randint(move_key, (), 0, 2)
        place = (walk.position + action - 1 + slip) % 6
        moved = Walk(place, walk.time + 1, walk.scale)
        terminated = place == 5
        truncated = (moved.time >= 5) & ~terminated
        old, new = (moved, place), fresh(reset_key, walk.scale)
        state, obs = jax.tree.map(lambda x, y: jnp.where(terminated | truncated, y, x), old, new)
        reward = walk.scale * (place - 1.5 + 0.1 * action)
        return state, Step(obs, reward, terminated, truncated, place)

    return Env(spec, lambda key: fresh(key, jnp.float32(1.0)), step)


def coin(short=1, long=10, p=0.5) -> Env:
    """Episodes of `short` or `long` steps with reward 1 each, by the toss of a coin."""
    spec = EnvSpec(obs_shape=(1,), num_actions=2, max_episode_steps=long, env_id="coin")

    def reset(key):
        length = jnp.where(jax.random.bernoulli(key, p), short, long)
        return (jnp.int32(0), length), jnp.zeros(1)

    def step(state, action, key):
        del action, key
        time, length = state[0] + 1, state[1]
        obs, no = time.astype(jnp.float32)[None], jnp.bool_(False)
        return (time, length), Step(obs, jnp.float32(1.0), time >= length, no, obs)

    return restarting(Env(spec, reset, step))


@config
class DriftConfig(RunConfig):
    learning_rate: float = option(0.1, "how far a reward moves the weights", above=0)
    explode_after: float = option(1e9, "updates after which the loss is NaN")
    poison_after: float = option(1e9, "updates after which the weights, no metric, are NaN")
    size: int = option(2, "of the weights", low=1)


class DriftState(NamedTuple):
    params: PyTree
    num_updates: Any


def drift(config, spec, *, begin=jax.random.normal) -> Agent:
    """An agent that compiles at once: it acts at random, and its weights drift with the rewards."""

    def init(key):
        return DriftState({"w": begin(key, (config.size,))}, jnp.int32(0))

    def act(state, obs, key):
        return jax.random.randint(key, (spec.num_envs,), 0, spec.num_actions), ()

    def greedy(state, obs, key):
        return jnp.zeros(spec.num_envs, jnp.int32)

    def update(state, trajectory, key):
        noise = jax.random.normal(key, (config.size,))
        push = config.learning_rate * (trajectory.reward.mean() + noise)
        count = state.num_updates
        loss = jnp.where(count >= config.explode_after, jnp.nan, jnp.square(push).mean())
        weights = jnp.where(count >= config.poison_after, jnp.nan, 0.9 * state.params["w"] + push)
        return DriftState({"w": weights}, count + 1), {
            "losses/loss": loss,
            "losses/noise": noise[0],
        }

    return Agent(init, act, greedy, update)


DRIFT = (DriftConfig, drift)


def bits(tree):
    """The structure of a tree, and the types, shapes and bytes of its leaves."""

    def of(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        x = jax.device_get(x)
        return str(x.dtype), x.shape, x.tobytes()

    return jax.tree.structure(tree), [of(x) for x in jax.tree.leaves(tree)]


def naive_gae(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    """Advantages `[T, B]` by the definition, in float64: sums of discounted TD errors."""
    reward, value, next_value = (np.asarray(x, np.float64) for x in (reward, value, next_value))
    done = np.asarray(terminated) | np.asarray(truncated)
    delta = reward + gamma * np.where(terminated, 0.0, next_value) - value
    advantage = np.zeros_like(delta)
    for t, b in np.ndindex(*delta.shape):
        for k in range(t, len(delta)):
            advantage[t, b] += (gamma * gae_lambda) ** (k - t) * delta[k, b]
            if done[k, b]:
                break
    return advantage


def random_trajectory(seed, T, B, spec, extras=(), ends=0.3):
    """Connected steps with many ends of both kinds, at the last step too."""
    rng = np.random.default_rng(seed)
    shape = (T, B, *spec.obs_shape)
    obs, final = rng.normal(size=shape), rng.normal(size=shape)
    end = rng.random((T, B))
    end[-1, 0], end[-1, -1] = 0.0, 1.0
    terminated, truncated = end < ends, end > 1 - ends
    next_obs = np.concatenate([obs[1:], final[-1:]])
    done = (terminated | truncated).reshape(T, B, *(1 for _ in spec.obs_shape))
    next_obs = np.where(done, final, next_obs)
    if spec.num_actions:
        action = rng.integers(0, spec.num_actions, (T, B))
    else:
        action = rng.normal(size=(T, B, *spec.action_shape)).astype(np.float32)
    arrays = (obs.astype(np.float32), action, rng.normal(size=(T, B)).astype(np.float32))
    arrays += (terminated, truncated, next_obs.astype(np.float32))
    return Transition(*map(jnp.asarray, arrays), extras)
