"""Networks with a memory, and how to learn with one.

What learns unrolls the network over the rollout, from the memory stored at its first step and at
each start of an episode: backpropagation through time, cut at the rollout's edge. A memory there
needs no burn-in: it is that of the parameters that acted.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks.layers import MLP, ConvTorso, flat_features, orthogonal, torso_of
from rljax.networks.policies import ActorCritic
from rljax.types import Array, EnvSpec, PyTree, RecurrentObs, Transition


class Unrolled(NamedTuple):
    """A whole rollout of it, to be gone through again with other parameters."""

    obs: PyTree  # [T, B, *obs_shape]
    memory: Array  # [T, B, H], as it was
    start: Array  # [T, B] bool: here the memory is taken as it was


class GRU(nn.Module):
    """Gated recurrent unit, https://arxiv.org/abs/1406.1078: memory `[..., H]`.

        r, z = sigmoid(x W + h U + b),  n = tanh(x W_n + b_n + r (h U_n + c)),  h' = (1-z) n + z h

    `gates` is the part that does not need the memory, for all steps at once.
    """

    size: int

    def setup(self):
        self.of_input = nn.Dense(3 * self.size, kernel_init=orthogonal())
        kernels = [orthogonal()] * 3  # each of the three is orthogonal by itself

        def init(key, shape):
            keys = jax.random.split(key, 3)
            parts = [
                kernel(k, (shape[0], shape[0])) for kernel, k in zip(kernels, keys, strict=True)
            ]
            return jnp.concatenate(parts, axis=-1)

        self.of_memory = self.param("of_memory", init, (self.size, 3 * self.size))
        self.bias = self.param("bias", nn.initializers.zeros, (self.size,))

    def gates(self, x: Array) -> Array:
        return self.of_input(x)

    def step(self, memory: Array, gates: Array) -> Array:
        recalled = jnp.split(memory @ self.of_memory, 3, axis=-1)
        reset, update, new = jnp.split(gates, 3, axis=-1)
        reset, update = nn.sigmoid(reset + recalled[0]), nn.sigmoid(update + recalled[1])
        bias = jnp.broadcast_to(self.bias, recalled[2].shape)
        new = nn.tanh(new + reset * (recalled[2] + bias))
        return (1.0 - update) * new + update * memory


class RecurrentActorCritic(nn.Module):
    """Policy and value of what is seen and remembered, through a GRU that both share.

    `RecurrentObs [..., *] -> (policy, value[...])`, one step; `Unrolled [T, B, *]` likewise, where
    each memory but those at a start is computed from the one before.
    """

    head: ActorCritic  # of the memory
    memory_size: int
    encoder_sizes: Sequence[int] = (64,)
    activation: str = "tanh"
    torso: str = "mlp"
    obs_rank: int = 1
    num_states: int = 0

    def setup(self):
        torso = ConvTorso if self.torso == "conv" else MLP
        self.encoder = torso(hidden_sizes=self.encoder_sizes, activation=self.activation)
        self.gru = GRU(self.memory_size)

    def __call__(self, seen):
        is_rollout = isinstance(seen, Unrolled)
        return self.head(self.unroll(seen) if is_rollout else self.remember(seen))

    def remember(self, seen: RecurrentObs) -> Array:
        """The memory after what is seen. `-> [..., H]`."""
        return self.gru.step(seen.memory, self._gates(seen.obs))

    def unroll(self, seen: Unrolled) -> Array:
        """The memories after each step of a rollout. `-> [T, B, H]`."""

        def once(memory, step):
            gates, stored, start = step
            memory = self.gru.step(jnp.where(start[:, None], stored, memory), gates)
            return memory, memory

        steps = self._gates(seen.obs), seen.memory, seen.start
        return jax.lax.scan(once, seen.memory[0], steps)[1]

    def _gates(self, obs):
        if self.torso != "conv":
            obs = flat_features(obs, self.obs_rank, self.num_states)
        return self.gru.gates(self.encoder(obs))


def recurrent_actor_critic_network(
    spec: EnvSpec, hidden_sizes: Sequence[int], activation: str, torso: str, std: str,
    memory_size: int,
) -> RecurrentActorCritic:  # fmt: skip
    """The recurrent actor-critic that fits an environment; `hidden_sizes` come before the GRU."""
    head = ActorCritic(spec.num_actions, spec.action_shape, (), activation, std=std)
    return RecurrentActorCritic(
        head, memory_size, tuple(hidden_sizes), activation, torso_of(spec, torso),
        len(spec.obs_shape), spec.num_states,
    )  # fmt: skip


def is_recurrent(network: Any) -> bool:
    """Whether a network has a memory: a method `remember`, like `RecurrentActorCritic`."""
    return hasattr(network, "remember")


def example(network: Any, spec: EnvSpec) -> PyTree:
    """What a network is initialised with: a batch of one observation of zeros."""
    obs = jnp.zeros((1, *spec.obs_shape))
    return RecurrentObs(obs, jnp.zeros((1, network.memory_size))) if is_recurrent(network) else obs


def with_memory(network: Any, params: PyTree, obs: PyTree, action: Array) -> PyTree:
    """The action, and the new memory where there is one."""
    if not is_recurrent(network):
        return action
    return action, network.apply(params, obs, method="remember")


def to_learn(network: Any, trajectory: Transition) -> PyTree:
    """What a network is to be applied to, to learn from a trajectory. `[T, B, *]`."""
    if not is_recurrent(network):
        return trajectory.obs
    done = trajectory.terminated | trajectory.truncated
    start = jnp.concatenate([jnp.ones_like(done[:1]), done[:-1]])
    return Unrolled(trajectory.obs.obs, trajectory.obs.memory, start)


def rows_of(network: Any, batch: PyTree) -> tuple[int, Callable[[Array], PyTree]]:
    """What a batch `[T, B, *]` may be divided into: `(how many rows, take(rows) -> part)`.

    Steps, `[N, *]`; with a memory, whole sequences, `[T, N, *]`, as it needs them in order.
    """
    num_steps, num_envs = jax.tree.leaves(batch)[0].shape[:2]
    if is_recurrent(network):
        return num_envs, lambda rows: jax.tree.map(lambda x: x[:, rows], batch)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    return num_steps * num_envs, lambda rows: jax.tree.map(lambda x: x[rows], flat)
