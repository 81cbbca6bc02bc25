"""Recurrent actor-critics, and how agents act and train with or without a memory.

A network is recurrent if it has an attribute `memory_size` above 0, the size H of its memory. It
maps a `RecurrentObs` `[..., *]` and an `Unrolled` `[T, B, *]` to `(policy, value)`, and has a
method `next_memory(RecurrentObs) -> [..., H]`. Training is backpropagation through time over the
rollout, from the memories stored when acting, so no burn-in is needed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks.actor_critic import ActorCritic, memory_size_of
from rljax.networks.cells import MEMORIES, MemoryCell
from rljax.networks.encoder import Encoder, Inputs, example_obs, inputs_of
from rljax.networks.layers import MLP
from rljax.ops.gradients import num_parts
from rljax.types import Array, EnvSpec, PyTree, RecurrentObs, Transition


class Unrolled(NamedTuple):
    """The observations of a rollout, over which a recurrent network is unrolled.

    Attributes:
      obs: observations of the environment, `[T, B, *obs_shape]`.
      memory: memory before each step, stored when acting, `[T, B, H]`.
      start: the step starts from `memory`, not from the previous step, `[T, B]` bool.
    """

    obs: PyTree
    memory: Array
    start: Array


class RecurrentActorCritic(nn.Module):
    """Policy and value from a memory cell that both share, behind an encoder of the observation.

    `RecurrentObs [..., *] -> (policy, value[...])` is one step. `Unrolled [T, B, *]` unrolls the
    network: memories are computed from the previous step except where `start` is set.

    Attributes:
      head: policy and value as a function of the output of the cell.
      cell: the memory cell.
      encoder_sizes: units of each hidden layer before the cell.
      activation: a name in `ACTIVATIONS`.
      inputs: the observations; images go through a convolution first.
    """

    head: ActorCritic
    cell: MemoryCell
    encoder_sizes: Sequence[int] = (64,)
    activation: str = "tanh"
    inputs: Inputs = Inputs()
    preserve_adopted_names = True  # the parameters of the cell are under its name, such as "gru"

    @property
    def memory_size(self) -> int:
        """Size H of the memory."""
        return self.cell.memory_size

    def setup(self):
        self.features = Encoder(self.inputs, self.activation)
        self.encoder = MLP(hidden_sizes=self.encoder_sizes, activation=self.activation)

    def __call__(self, inputs):
        of_obs = self._inputs(inputs.obs)
        if isinstance(inputs, Unrolled):
            memory = self.cell.unroll(of_obs, inputs.memory, inputs.start)
        else:
            memory = self.cell.step(inputs.memory, of_obs)
        return self.head(self.cell.output(memory, of_obs))

    def next_memory(self, obs: RecurrentObs) -> Array:
        """Returns the memory after an observation, `[..., H]`."""
        return self.cell.step(obs.memory, self._inputs(obs.obs))

    def _inputs(self, obs):
        return self.cell.inputs(self.encoder(self.features(obs)))


def recurrent_actor_critic_network(
    spec: EnvSpec, hidden_sizes: Sequence[int] = (64,), activation: str = "tanh",
    torso: str = "auto", std: str = "free", memory_size: int = 64, memory: str = "gru",
) -> RecurrentActorCritic:  # fmt: skip
    """Returns a recurrent actor-critic for the observations and actions of an environment.

    Args:
      spec: description of the environment.
      hidden_sizes: units of each hidden layer before the memory cell.
      activation, torso, std: as in `actor_critic_network`.
      memory_size: number of units of the memory cell.
      memory: name of the memory cell in `MEMORIES`.

    Raises:
      ValueError: there is no such memory cell.

    Example:
      >>> spec = EnvSpec(obs_shape=(3,), num_actions=2)
      >>> network = recurrent_actor_critic_network(spec, memory_size=8, memory="lstm")
      >>> network.memory_size  # hidden state and cell state
      16
      >>> obs = RecurrentObs(jnp.zeros((1, 3)), jnp.zeros((1, 16)))
      >>> params = jax.eval_shape(network.init, jax.random.key(0), obs)
      >>> sorted(params["params"])
      ['encoder', 'head', 'lstm']
    """
    cell_type = MEMORIES.get(memory)
    if cell_type is None:
        names = ", ".join(name for name in MEMORIES if MEMORIES[name])
        raise ValueError(f"`memory` is {memory!r}, but it must be one of {names}.")
    head = ActorCritic(spec.num_actions, spec.action_shape, (), activation, std=std)
    cell = cell_type(memory_size, name=memory)
    return RecurrentActorCritic(head, cell, tuple(hidden_sizes), activation, inputs_of(spec, torso))


class WithMemory(Protocol):
    def __call__(self, params: PyTree, obs: PyTree, action: Array, /) -> PyTree:
        """Returns the action for the environment, with the next memory if there is one."""
        ...


class TrainingInputs(Protocol):
    def __call__(self, trajectory: Transition, /) -> PyTree:
        """Returns the network inputs `[T, B, *]` for training on a trajectory."""
        ...


class Split(Protocol):
    def __call__(self, batch: PyTree, /) -> tuple[int, Callable[[Array | slice], PyTree]]:
        """Splits a batch `[T, B, *]` into items that can be shuffled.

        Returns:
          The number of items, and a function that returns the items of the given indices `[N]`, or
          of a slice.
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
      num_parts: `(number of items of a minibatch, params) -> parts` for `ops.gradients.mean_grad`;
        1 if recurrent.
    """

    example_obs: PyTree
    with_memory: WithMemory
    training_inputs: TrainingInputs
    split: Split
    num_parts: Callable[[int, PyTree], int]


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
        num_parts=num_parts,
    )


def recurrent(network: Any, spec: EnvSpec) -> Sequences:
    """The `Sequences` of a recurrent network.

    Raises:
      ValueError: its method `next_memory` returns a memory of another shape.
    """
    example = example_obs(spec, memory_size=memory_size_of(network))
    _check_next_memory(network, example)

    def with_memory(params, obs, action):
        return action, network.apply(params, obs, method="next_memory")

    def training_inputs(trajectory):
        done = trajectory.terminated | trajectory.truncated
        start = jnp.concatenate([jnp.ones_like(done[:1]), done[:-1]])
        return Unrolled(trajectory.obs.obs, trajectory.obs.memory, start)

    def split(batch):
        num_envs = jax.tree.leaves(batch)[0].shape[1]
        return num_envs, lambda indices: jax.tree.map(lambda x: x[:, indices], batch)

    return Sequences(example, with_memory, training_inputs, split, lambda num_items, params: 1)


def _check_next_memory(network: Any, example: RecurrentObs) -> None:
    def next_memory(key):
        return network.init_with_output(key, example, method="next_memory")[0]

    given, size = jax.eval_shape(next_memory, jax.random.key(0)).shape, example.memory.shape
    if given != size:
        raise ValueError(
            f"the next memory has shape {given}, but the memory before it has shape {size}: both "
            "are [..., H], where H is the `memory_size` of the network or memory cell."
        )
