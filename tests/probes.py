"""Small environments and a trivial agent with known values, for tests."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax.config import RunConfig, config, option
from rljax.experiment.plan import as_observed
from rljax.types import Agent, Env, EnvSpec, PyTree, Step, Transition


def restarting(env: Env) -> Env:
    """Resets an environment at every step where an episode ends; it may close over tracers."""

    def step(state, action, key):
        step_key, reset_key = jax.random.split(key)
        state, step = env.step(state, action, step_key)
        done = step.terminated | step.truncated
        old, new = (state, step.next_obs), env.reset(reset_key)
        state, obs = jax.tree.map(lambda x, y: jnp.where(done, y, x), old, new)
        return state, step._replace(obs=obs)

    return env._replace(step=step)


def with_memory(row, config, env: Env) -> Env:
    """Adds the memory of a recurrent agent, or the state, as an experiment does."""
    return as_observed(row, config, env)


CONSTANT, OBSERVED, DELAYED, ARM, MATCH = range(5)
TARGET = 0.3  # the best continuous action of ARM


class ProbeState(NamedTuple):
    """The state of `probe`.

    Attributes:
      time: steps since the start of the episode.
      sign: -1 or 1, drawn at the start of the episode.
    """

    time: Any
    sign: Any


def probe(kind, length, terminates=True, numbered=False, continuous=False) -> Env:
    """Probe environments, whose values and best policies are known; arguments may be tracers.

    Observations are 0 unless stated otherwise.
    CONSTANT: reward 1.
    OBSERVED: the reward is the sign, which is observed.
    DELAYED: the reward is the time, which is observed.
    ARM: reward 1 for action 1 and -1 for action 0; continuous: -|action - TARGET|.
    MATCH: reward 1 if the action (0 or 1) has the observed sign, else -1; continuous:
      -|action - sign|.

    Args:
      kind: one of the kinds above.
      length: length of the episodes.
      terminates: episodes end by termination, otherwise by truncation.
      numbered: observe -1, 0 and 1 as the state indices 0, 1 and 2.
      continuous: actions `[1]` in [-2, 2] instead of 0 and 1.
    """
    spec = EnvSpec(obs_shape=(1,), num_actions=2, env_id="probe")
    if numbered:
        spec = spec._replace(obs_shape=(), num_states=3)
    if continuous:
        spec = spec._replace(num_actions=0, action_shape=(1,), action_low=-2.0, action_high=2.0)

    def observe(state):
        zero = jnp.float32(0)
        time = state.time.astype(jnp.float32)
        number = jnp.stack([zero, state.sign, time, zero, state.sign])[kind]
        return jnp.clip(number + 1, 0, 2).astype(jnp.int32) if numbered else number[None]

    def reset(key):
        state = ProbeState(jnp.int32(0), jnp.where(jax.random.bernoulli(key), 1.0, -1.0))
        return state, observe(state)

    def step(state, action, key):
        del key
        if continuous:
            arm, match = -jnp.abs(action[0] - TARGET), -jnp.abs(action[0] - state.sign)
        else:
            arm = 2.0 * action - 1.0
            match = arm * state.sign
        rewards = [1.0, state.sign, state.time, arm, match]
        reward = jnp.stack([jnp.float32(x) for x in rewards])[kind]
        state = state._replace(time=state.time + 1)
        done, terminates_ = state.time >= length, jnp.asarray(terminates)
        obs = observe(state)
        return state, Step(obs, reward, done & terminates_, done & ~terminates_, obs)

    return restarting(Env(spec, reset, step))


def box(low, high, optimum) -> Env:
    """Episodes of one step; the reward is minus the squared distance to the best action, `[A]`.

    Distances are in half ranges of each dimension. The first observation is 0, and the final one
    is the executed action.
    """
    size, half_range = len(optimum), jnp.asarray(high - low) / 2
    spec = EnvSpec((size,), action_shape=(size,), action_low=low, action_high=high, env_id="box")

    def reset(key):
        return jnp.zeros(()), jnp.zeros(size)

    def step(state, action, key):
        reward = -jnp.square((action - jnp.asarray(optimum)) / half_range).sum()
        return state, Step(action, reward, jnp.bool_(True), jnp.bool_(False), action)

    return restarting(Env(spec, reset, step))


class Walk(NamedTuple):
    """The state of `walk` and `circle`.

    Attributes:
      position: `[3]` in `walk`, a state index in `circle`.
      time: steps since the start of the episode.
      scale: factor of the rewards, which resets do not change.
    """

    position: Any
    time: Any
    scale: Any


def walk(continuous=False) -> Env:
    """A noisy walk in three dimensions; episodes terminate, or are truncated after 5 steps."""
    spec = EnvSpec(obs_shape=(3,), num_actions=3, max_episode_steps=5, env_id="walk")
    if continuous:
        spec = spec._replace(num_actions=0, action_shape=(2,), action_low=-2.0, action_high=1.0)

    def start(key, scale):
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
        old, new = (moved, position), start(reset_key, walk.scale)
        state, obs = jax.tree.map(lambda x, y: jnp.where(terminated | truncated, y, x), old, new)
        reward = walk.scale * (position[1] + 0.1 * push)
        return state, Step(obs, reward, terminated, truncated, position)

    return Env(spec, lambda key: start(key, jnp.float32(1.0)), step)


def circle() -> Env:
    """A noisy walk in a circle of six states; episodes terminate in state 5, or after 5 steps."""
    spec = EnvSpec((), num_actions=3, num_states=6, max_episode_steps=5, env_id="circle")

    def start(key, scale):
        position = jax.random.randint(key, (), 0, 6)
        return Walk(position, jnp.int32(0), scale), position

    def step(walk, action, key):
        move_key, reset_key = jax.random.split(key)
        slip = jax.random.randint(move_key, (), 0, 2)
        position = (walk.position + action - 1 + slip) % 6
        moved = Walk(position, walk.time + 1, walk.scale)
        terminated = position == 5
        truncated = (moved.time >= 5) & ~terminated
        old, new = (moved, position), start(reset_key, walk.scale)
        state, obs = jax.tree.map(lambda x, y: jnp.where(terminated | truncated, y, x), old, new)
        reward = walk.scale * (position - 1.5 + 0.1 * action)
        return state, Step(obs, reward, terminated, truncated, position)

    return Env(spec, lambda key: start(key, jnp.float32(1.0)), step)


def coin(short=1, long=10, p=0.5) -> Env:
    """Episodes of `short` steps with probability `p`, else of `long` steps; reward 1 a step."""
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
    learning_rate: float = option(0.1, "step size of the weights", above=0)
    explode_after: float = option(1e9, "number of updates before the loss is NaN")
    poison_after: float = option(1e9, "number of updates before the weights are NaN, but no metric")
    size: int = option(2, "number of weights", low=1)


class DriftState(NamedTuple):
    params: PyTree
    num_updates: Any


def drift(config, spec, *, initial_weights=jax.random.normal) -> Agent:
    """An agent that compiles fast: it acts at random, and its weights drift with the rewards."""

    def init(key):
        return DriftState({"w": initial_weights(key, (config.size,))}, jnp.int32(0))

    def act(state, obs, key):
        return jax.random.randint(key, (spec.num_envs,), 0, spec.num_actions), ()

    def greedy(state, obs, key):
        return jnp.zeros(spec.num_envs, jnp.int32)

    def update(state, trajectory, key):
        noise = jax.random.normal(key, (config.size,))
        change = config.learning_rate * (trajectory.reward.mean() + noise)
        count = state.num_updates
        loss = jnp.where(count >= config.explode_after, jnp.nan, jnp.square(change).mean())
        weights = config.gamma * state.params["w"] + change
        weights = jnp.where(count >= config.poison_after, jnp.nan, weights)
        return DriftState({"w": weights}, count + 1), {
            "losses/loss": loss,
            "losses/noise": noise[0],
        }

    return Agent(init, act, greedy, update)


DRIFT = (DriftConfig, drift)


def bits(tree):
    """Returns the structure of a tree, and the dtypes, shapes and bytes of its leaves."""

    def leaf_bits(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        x = jax.device_get(x)
        return str(x.dtype), x.shape, x.tobytes()

    return jax.tree.structure(tree), [leaf_bits(x) for x in jax.tree.leaves(tree)]


def counts(opt_state):
    """Returns the steps that Adam has taken, and the steps that its schedule has counted."""
    counted = optax.ScaleByAdamState | optax.ScaleByScheduleState
    states = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, counted))
    return tuple(int(x.count) for x in states if isinstance(x, counted))


def rollout(env, key, actions):
    """Returns the first observation, states `[T, ...]` and steps `[T, ...]`; compiles fast."""

    def run(key, actions):
        reset_key, key = jax.random.split(key)
        state, obs = env.reset(reset_key)

        def env_step(state, inputs):
            state, step = env.step(state, *inputs)
            return state, (state, step)

        inputs = actions, env.sample_noise(key, len(actions))
        return obs, *jax.lax.scan(env_step, state, inputs)[1]

    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})(key, actions)


def naive_gae(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    """Returns GAE advantages `[T, B]` by definition, in float64: discounted sums of TD errors."""
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
    """Returns connected steps with many terminations and truncations, also at the last step."""
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
