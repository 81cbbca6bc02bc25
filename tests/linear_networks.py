"""Linear networks and a fixed batch, for gradient steps that are computed by hand in float64.

Policies are linear in the observations s, and critics in the features (s, a, a^2).
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import EnvSpec, Replay, Sample, Transition

N = 6
LOW, HIGH = np.array([-2.0, 0.0]), np.array([6.0, 0.5])
SPEC = EnvSpec((2,), action_shape=(2,), action_low=LOW, action_high=HIGH, num_envs=2)
DISCRETE = EnvSpec((2,), num_actions=3, num_envs=2)
# one gradient step after each rollout of six steps, from the first on
OPTIONS = {
    "num_envs": 2, "num_steps": 3, "total_timesteps": 60, "gamma": 0.9, "buffer_size": 40,
    "batch_size": N, "learning_starts": 6, "train_frequency": 6, "gradient_steps": 1,
    "target_update_interval": 6, "tau": 0.25, "importance_exponent": 0.4,
}  # fmt: skip
PROBABILITY, MIN_PROBABILITY = np.array([0.3, 0.1, 0.2, 0.1, 0.2, 0.1]), 0.05


def weights(module, name, *shape):
    return module.param(name, partial(jax.random.uniform, minval=-0.3, maxval=0.6), shape)


class LinearPolicy(nn.Module):
    """`obs[..., 2] -> [..., size]`: actions, or logits."""

    size: int = 2

    @nn.compact
    def __call__(self, obs):
        return obs @ weights(self, "w", 2, self.size)


class GaussianPolicy(nn.Module):
    """`obs[..., 2] -> (mean[..., 2], log_std[..., 2])`."""

    @nn.compact
    def __call__(self, obs):
        return obs @ weights(self, "mean", 2, 2), obs @ weights(self, "log_std", 2, 2) - 0.5


class QuadraticCritic(nn.Module):
    """`obs[..., 2], action[..., 2] -> Q[...]`, linear in (s, a, a^2)."""

    @nn.compact
    def __call__(self, obs, action):
        features = jnp.concatenate([obs, action, jnp.square(action)], axis=-1)
        return features @ weights(self, "w", 6)


class ConstantCritic(nn.Module):
    """A critic with the same value for everything, its only parameter."""

    @nn.compact
    def __call__(self, obs, action):
        return jnp.broadcast_to(self.param("value", nn.initializers.zeros, ()), obs.shape[:-1])


class LinearActionValues(nn.Module):
    """`obs[..., 2] -> Q[..., 3]`."""

    @nn.compact
    def __call__(self, obs):
        return obs @ weights(self, "w", 2, 3)


def float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def features(obs, action):
    return np.concatenate([obs, action, action**2], axis=-1)


def slope(w, action):
    """dQ/da of a `QuadraticCritic`, `[N, 2]`."""
    return w[2:4] + 2.0 * w[4:6] * action


class Data(NamedTuple):
    """A batch in float64; continuous actions in [-1, 1], `continues` is 0 in terminal states."""

    obs: Any
    action: Any
    reward: Any
    continues: Any
    next_obs: Any
    discount: Any

    def td_target(self, next_value):
        return self.reward + self.discount * self.continues * next_value


def make_batch(spec, discount=None):
    """Returns six transitions, two terminated and one truncated, as a `Transition` and as `Data`.

    Args:
      spec: `SPEC` or `DISCRETE`.
      discount: the discount of n-step replay; None for gamma of `OPTIONS`.
    """
    rng = np.random.default_rng(3)
    obs, next_obs = rng.normal(size=(2, N, 2)).astype(np.float32)
    reward = rng.normal(size=N).astype(np.float32)
    terminated = np.array([0, 1, 0, 0, 1, 0], bool)
    truncated = np.array([0, 0, 1, 0, 0, 0], bool)
    if spec.num_actions:
        stored = action = rng.integers(spec.num_actions, size=N)
    else:
        action = rng.uniform(-1.0, 1.0, (N, 2))
        stored = (LOW + (action + 1.0) / 2.0 * (HIGH - LOW)).astype(np.float32)
    extras = () if discount is None else {"discount": jnp.full(N, discount)}
    arrays = map(jnp.asarray, (obs, stored, reward, terminated, truncated, next_obs))
    discount = OPTIONS["gamma"] if discount is None else discount
    obs, reward, next_obs = (np.float64(x) for x in (obs, reward, next_obs))
    data = Data(obs, action, reward, ~terminated, next_obs, discount)
    return Transition(*arrays, extras), data


def importance_weight(update):
    """The weights of gradient step `update` (from 0), whose exponent is annealed to 1, `[N]`."""
    beta = 0.4 + 0.6 * 6 * (update + 1) / 60
    return (PROBABILITY / MIN_PROBABILITY) ** -beta


def constant_replay(sample):
    """A replay with the same sample every time; its state is the last TD errors and indices."""
    size = sample.indices.shape
    return Replay(
        init=lambda item: (jnp.zeros(size), jnp.zeros(size, jnp.int32)),
        add=lambda state, items, skip=0: state,
        sample=lambda state, noise: sample,
        reprioritize=lambda state, indices, td_error: (td_error, indices),
        size=lambda state: jnp.int32(size[0]),
    )


def replay_of(batch):
    probability = jnp.asarray(PROBABILITY, jnp.float32)
    return constant_replay(Sample(batch, jnp.arange(N), probability, jnp.float32(MIN_PROBABILITY)))


def make_config(config_class, **options):
    return config_class(**(OPTIONS | options))


def rollout(spec, num_steps=OPTIONS["num_steps"]):
    """A rollout, which `constant_replay` ignores."""
    shape = (num_steps, OPTIONS["num_envs"])
    action = jnp.zeros(shape, jnp.int32) if spec.num_actions else jnp.zeros((*shape, 2))
    obs, flags = jnp.zeros((*shape, 2)), jnp.zeros(shape, bool)
    return Transition(obs, action, jnp.zeros(shape), flags, flags, obs)


def updates(agent, spec, count, change=None, seed=0, num_steps=OPTIONS["num_steps"]):
    """Returns the initial state of an agent, and its states and metrics after each update.

    Args:
      agent: an agent with one gradient step per update.
      spec: `SPEC` or `DISCRETE`.
      count: number of updates.
      change: `learned -> learned`, applied to the initial state.
      seed: random seed of the first update.
      num_steps: length of the rollouts.
    """
    state = jax.jit(agent.init)(jax.random.key(0))
    # the target starts at other parameters than the online networks
    target = jax.tree.map(lambda x: 1.25 * x, state.learned.target_params)
    state = state._replace(learned=state.learned._replace(target_params=target))
    if change:
        state = state._replace(learned=change(state.learned))
    update, states, metrics = jax.jit(agent.update), [state], []
    for i in range(count):
        state, row = update(states[-1], rollout(spec, num_steps), jax.random.key(seed + i))
        states.append(state)
        metrics.append({name: float(x.total / x.weight) for name, x in row.items() if x.weight})
    return states, metrics


def assert_trees_close(got, expected, rtol=1e-4, atol=1e-6):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@dataclasses.dataclass
class Adam:
    """Adam of a number (Kingma and Ba 2015, algorithm 1), in float64."""

    learning_rate: float
    mean: float = 0.0
    square: float = 0.0
    count: int = 0

    def step(self, grad):
        """Returns the change of the number."""
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * grad
        self.square = 0.999 * self.square + 0.001 * grad**2
        mean, square = self.mean / (1 - 0.9**self.count), self.square / (1 - 0.999**self.count)
        return -self.learning_rate * mean / (np.sqrt(square) + 1e-8)
