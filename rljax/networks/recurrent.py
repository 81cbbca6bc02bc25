"""Recurrent actor-critics, and how agents act and train with or without a memory.

A network is recurrent if it has an attribute `memory_size` above 0, the size H of its hidden
state. It maps a `RecurrentObs` `[..., *]` and an `Unrolled` `[T, B, *]` to `(policy, value)`, and
has a method `next_memory(RecurrentObs) -> [..., H]`. Training is backpropagation through time over
the rollout, from the hidden states stored when acting, so no burn-in is needed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks.actor_critic import ActorCritic, memory_size_of
from rljax.networks.encoder import Encoder, Inputs, example_obs, inputs_of
from rljax.networks.layers import MLP, orthogonal
from rljax.types import Array, EnvSpec, PyTree, RecurrentObs, Transition


class Unrolled(NamedTuple):
    """The observations of a rollout, over which a recurrent network is unrolled.

    Attributes:
      obs: observations of the environment, `[T, B, *obs_shape]`.
      memory: hidden state stored when acting, `[T, B, H]`.
      start: the hidden state is reset to `memory` at this step, `[T, B]` bool.
    """

    obs: PyTree
    memory: Array
    start: Array


class GRU(nn.Module):
    """Gated recurrent unit, https://arxiv.org/abs/1406.1078, with hidden state h `[..., H]`.

    r, z = sigmoid(x W + h U + b),  n = tanh(x W_n + b_n + r (h U_n + c)),  h' = (1-z) n + z h
    """

    size: int

    def setup(self):
        self.of_input = nn.Dense(3 * self.size, kernel_init=orthogonal())
        kernels = [orthogonal()] * 3  # U is orthogonal for each of the three gates

        def init(key, shape):
            keys = jax.random.split(key, 3)
            parts = [
                kernel(k, (shape[0], shape[0])) for kernel, k in zip(kernels, keys, strict=True)
            ]
            return jnp.concatenate(parts, axis=-1)

        self.of_memory = self.param("of_memory", init, (self.size, 3 * self.size))
        self.bias = self.param("bias", nn.initializers.zeros, (self.size,))

    def gates(self, x: Array) -> Array:
        """Returns the part of the gates that depends on the input only, for all steps at once."""
        return self.of_input(x)

    def step(self, memory: Array, gates: Array) -> Array:
        """Returns the next hidden state, `[..., H], [..., 3 H] -> [..., H]`."""
        recurrent = jnp.split(memory @ self.of_memory, 3, axis=-1)
        reset, update, new = jnp.split(gates, 3, axis=-1)
        reset, update = nn.sigmoid(reset + recurrent[0]), nn.sigmoid(update + recurrent[1])
        bias = jnp.broadcast_to(self.bias, recurrent[2].shape)
        new = nn.tanh(new + reset * (recurrent[2] + bias))
        return (1.0 - update) * new + update * memory


class RecurrentActorCritic(nn.Module):
    """Policy and value from a GRU that both share, behind an encoder of the observation.

    `RecurrentObs [..., *] -> (policy, value[...])` is one step. `Unrolled [T, B, *]` unrolls the
    network: hidden states are computed from the previous step except where `start` is set.

    Attributes:
      head: policy and value as a function of the hidden state.
      memory_size: size H of the hidden state.
      encoder_sizes: units of each hidden layer before the GRU.
      activation: a name in `ACTIVATIONS`.
      inputs: the observations; images go through a convolution first.
    """

    head: ActorCritic
    memory_size: int
    encoder_sizes: Sequence[int] = (64,)
    activation: str = "tanh"
    inputs: Inputs = Inputs()

    def setup(self):
        self.features = Encoder(self.inputs, self.activation)
        self.encoder = MLP(hidden_sizes=self.encoder_sizes, activation=self.activation)
        self.gru = GRU(self.memory_size)

    def __call__(self, inputs):
        is_rollout = isinstance(inputs, Unrolled)
        return self.head(self.unroll(inputs) if is_rollout else self.next_memory(inputs))

    def next_memory(self, obs: RecurrentObs) -> Array:
        """Returns the hidden state after an observation, `[..., H]`."""
        return self.gru.step(obs.memory, self._gates(obs.obs))

    def unroll(self, inputs: Unrolled) -> Array:
        """Returns the hidden state after each observation of a rollout, `[T, B, H]`."""

        def one_step(memory, step):
            gates, stored, start = step
            memory = self.gru.step(jnp.where(start[:, None], stored, memory), gates)
            return memory, memory

        steps = self._gates(inputs.obs), inputs.memory, inputs.start
        return jax.lax.scan(one_step, inputs.memory[0], steps)[1]

    def _gates(self, obs):
        return self.gru.gates(self.encoder(self.features(obs)))


def recurrent_actor_critic_network(
    spec: EnvSpec, hidden_sizes: Sequence[int] = (64,), activation: str = "tanh",
    torso: str = "auto", std: str = "free", memory_size: int = 64,
) -> RecurrentActorCritic:  # fmt: skip
    """Returns a recurrent actor-critic for the observations and actions of an environment.

    Args:
      spec: description of the environment.
      hidden_sizes: units of each hidden layer before the GRU.
      activation, torso, std: as in `actor_critic_network`.
      memory_size: size of the hidden state.

    Example:
      >>> spec = EnvSpec(obs_shape=(3,), num_actions=2)
      >>> network = recurrent_actor_critic_network(spec, memory_size=8)
      >>> obs = RecurrentObs(jnp.zeros((1, 3)), jnp.zeros((1, 8)))
      >>> params = jax.eval_shape(network.init, jax.random.key(0), obs)
      >>> sorted(params["params"])
      ['encoder', 'gru', 'head']
    """
    head = ActorCritic(spec.num_actions, spec.action_shape, (), activation, std=std)
    return RecurrentActorCritic(
        head, memory_size, tuple(hidden_sizes), activation, inputs_of(spec, torso)
    )


class WithMemory(Protocol):
    def __call__(self, params: PyTree, obs: PyTree, action: Array, /) -> PyTree:
        """Returns the action for the environment, with the next hidden state if there is one."""
        ...


class TrainingInputs(Protocol):
    def __call__(self, trajectory: Transition, /) -> PyTree:
        """Returns the network inputs `[T, B, *]` for training on a trajectory."""
        ...


class Split(Protocol):
    def __call__(self, batch: PyTree, /) -> tuple[int, Callable[[Array], PyTree]]:
        """Splits a batch `[T, B, *]` into items that can be shuffled.

        Returns:
          The number of items, and a function that returns the items of the given indices `[N]`.
        """
        ...


class Sequences(NamedTuple):
    """How an agent uses its network over time: `memoryless` or `recurrent`.

    Attributes:
      example_obs: observation `[1, *]` that the network is initialized with.
      with_memory: `(params, obs, action) -> action`, or `(action, next memory)` if recurrent.
      training_inputs: `(trajectory) -> inputs[T, B, *]`; an `Unrolled` if recurrent.
      split: `(batch[T, B, *]) -> (number of items, take)`. Items are single steps, `take(indices)`
        has shape `[N, *]`; if recurrent they are whole sequences, `[T, N, *]`.
    """

    example_obs: PyTree
    with_memory: WithMemory
    training_inputs: TrainingInputs
    split: Split


def sequences(network: Any, spec: EnvSpec) -> Sequences:
    """Returns `recurrent` for a network with a `memory_size` above 0, else `memoryless`."""
    return recurrent(network, spec) if memory_size_of(network) else memoryless(spec)


def memoryless(spec: EnvSpec) -> Sequences:
    """The `Sequences` of a network whose outputs depend on the current observation only."""

    def split(batch):
        num_steps, num_envs = jax.tree.leaves(batch)[0].shape[:2]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
        return num_steps * num_envs, lambda indices: jax.tree.map(lambda x: x[indices], flat)

    return Sequences(
        example_obs=example_obs(spec),
        with_memory=lambda params, obs, action: action,
        training_inputs=lambda trajectory: trajectory.obs,
        split=split,
    )


def recurrent(network: Any, spec: EnvSpec) -> Sequences:
    """The `Sequences` of a recurrent network."""

    def with_memory(params, obs, action):
        return action, network.apply(params, obs, method="next_memory")

    def training_inputs(trajectory):
        done = trajectory.terminated | trajectory.truncated
        start = jnp.concatenate([jnp.ones_like(done[:1]), done[:-1]])
        return Unrolled(trajectory.obs.obs, trajectory.obs.memory, start)

    def split(batch):
        num_envs = jax.tree.leaves(batch)[0].shape[1]
        return num_envs, lambda indices: jax.tree.map(lambda x: x[:, indices], batch)

    return Sequences(
        example_obs(spec, memory_size=memory_size_of(network)), with_memory, training_inputs, split
    )
