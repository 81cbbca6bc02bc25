"""The networks of MuZero: representation, dynamics and prediction, in one module.

Schrittwieser et al. 2020, https://arxiv.org/abs/1911.08265 (section 3, appendix F). Any flax
module with the same three methods can be given as `network=` to the agent.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks.action_values import Layers
from rljax.networks.encoder import Encoder, Inputs, example_obs, inputs_of
from rljax.networks.layers import orthogonal
from rljax.types import Array, EnvSpec


class MuZeroNetwork(nn.Module):
    """A model that represents, imagines and evaluates states as vectors of D numbers in [0, 1].

    Attributes:
      num_actions: A.
      support_size: S; values and rewards are logits of the integers -S, ..., S.
      hidden_sizes: units of the hidden layers of each of the three networks; the last one is D.
      activation: a name in `networks.ACTIVATIONS`.
      inputs: how the observations are encoded.
    """

    num_actions: int
    support_size: int = 20
    hidden_sizes: Sequence[int] = (128, 128)
    activation: str = "relu"
    inputs: Inputs = Inputs()

    def setup(self):
        self.encoder = Encoder(self.inputs, self.activation)
        self.representation = self.layers()
        self.representation_state = self.linear(self.hidden_sizes[-1])
        self.transition = self.layers()
        self.transition_state = self.linear(self.hidden_sizes[-1])
        self.reward = self.linear(2 * self.support_size + 1, 0.01)
        self.prediction = self.layers()
        self.policy = self.linear(self.num_actions, 0.01)
        self.value = self.linear(2 * self.support_size + 1, 0.01)

    def layers(self):
        return Layers(self.hidden_sizes, self.activation, layer_norm=True)

    def linear(self, size, scale=1.0):
        return nn.Dense(size, kernel_init=orthogonal(scale))

    def represent(self, obs):
        """Returns the state of observations, `[..., *obs_shape] -> [..., D]`."""
        return unit_scaled(self.representation_state(self.representation(self.encoder(obs))))

    def dynamics(self, state, action):
        """Returns the next state `[..., D]` and the reward logits `[..., 2 S + 1]`.

        Args:
          state: `[..., D]`.
          action: `[...]` integers.
        """
        one_hot = jax.nn.one_hot(action, self.num_actions)
        hidden = self.transition(jnp.concatenate([state, one_hot], axis=-1))
        return unit_scaled(state + self.transition_state(hidden)), self.reward(hidden)

    def predict(self, state):
        """Returns the policy logits `[..., A]` and the value logits `[..., 2 S + 1]` of states."""
        hidden = self.prediction(state)
        return self.policy(hidden), self.value(hidden)

    def __call__(self, obs, action):
        """Applies all three, to initialize the parameters."""
        state, reward = self.dynamics(self.represent(obs), action)
        return state, reward, *self.predict(state)


def unit_scaled(state: Array) -> Array:
    """Scales each state to the range [0, 1], the range of one-hot actions, `[..., D] -> [..., D]`.

        (s - min s) / (max s - min s)

    Schrittwieser et al. 2020 (appendix G).

    Example:
      >>> unit_scaled(jnp.array([[-1.0, 3.0, 1.0]])).tolist()
      [[0.0, 1.0, 0.5]]
    """
    low, high = state.min(axis=-1, keepdims=True), state.max(axis=-1, keepdims=True)
    return (state - low) / jnp.maximum(high - low, 1e-5)


def muzero_network(
    spec: EnvSpec, support_size: int, hidden_sizes: Sequence[int], activation: str = "relu",
    torso: str = "auto",
) -> MuZeroNetwork:  # fmt: skip
    """Returns the networks of MuZero for the observations of an environment.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = muzero_network(EnvSpec((4,), num_actions=2), 10, (64, 64))
      >>> obs, action = jnp.zeros((3, 4)), jnp.zeros(3, jnp.int32)
      >>> params = network.init(jax.random.key(0), obs, action)
      >>> [x.shape for x in network.apply(params, obs, action)]
      [(3, 64), (3, 21), (3, 2), (3, 21)]
    """
    return MuZeroNetwork(
        spec.num_actions, support_size, tuple(hidden_sizes), activation, inputs_of(spec, torso)
    )


def check_muzero_network(network: Any, spec: EnvSpec) -> None:
    """Checks that `network` has the methods and outputs of a `MuZeroNetwork`.

    Raises:
      ValueError: it is no flax linen module, lacks a method, or its outputs have the wrong form.
    """
    wanted = "a flax linen module with the methods of `rljax.networks.muzero.MuZeroNetwork`"
    methods = ("represent", "dynamics", "predict")
    missing = [name for name in methods if not callable(getattr(network, name, None))]
    if not isinstance(network, nn.Module) or missing:
        lack = f" without the method `{missing[0]}`" if missing else ""
        raise ValueError(f"`network` is a {type(network).__name__}{lack}, but it must be {wanted}.")
    obs, action = example_obs(spec, (2,)), jnp.zeros(2, jnp.int32)
    outputs = jax.eval_shape(
        lambda key: network.init_with_output(key, obs, action)[0], jax.random.key(0)
    )
    _, reward, policy, value = outputs
    shapes = reward.shape, policy.shape, value.shape
    odd = value.shape[-1] % 2 == 1 and value.shape == reward.shape
    if policy.shape != (2, spec.num_actions) or not odd:
        raise ValueError(
            f"`network` returns rewards, policies and values of shapes {shapes} for two "
            f"observations, but they must be (2, K), (2, {spec.num_actions}) and (2, K) with an "
            "odd K: the logits of a symmetric support."
        )
