"""Q-networks: `obs[..., *obs_shape] -> [..., A]`, or `[..., A, K]` for K numbers an action.

Any flax module with this signature can be given as `network=` to an agent of action values.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from rljax.networks.encoder import Encoder, Inputs, example_obs, inputs_of
from rljax.networks.layers import ACTIVATIONS, orthogonal
from rljax.networks.nnx_modules import nnx_cure
from rljax.ops import random
from rljax.types import EnvSpec, SampleNoise


class NoisyDense(nn.Module):
    """A dense layer with learned noise, https://arxiv.org/abs/1706.10295 (eqs. 9 to 11).

        (w + s_w * e_out e_in^T) x + b + s_b * e_out

    The factorised noise `e_in[I]` and `e_out[O]` is the same for all rows of a batch. It is given
    as the collection `noise` (see `noise_sampler`); without it the noise is zero.
    `[..., I] -> [..., O]`.
    """

    features: int
    sigma: float = 0.5  # initial standard deviation times the root of the number of inputs

    @nn.compact
    def __call__(self, x):
        inputs, bound = x.shape[-1], x.shape[-1] ** -0.5
        uniform = nn.initializers.uniform(2 * bound)

        def around_zero(*args):
            return uniform(*args) - bound

        spread = nn.initializers.constant(self.sigma * bound)
        kernel = self.param("kernel", around_zero, (inputs, self.features))
        bias = self.param("bias", around_zero, (self.features,))
        kernel_spread = self.param("kernel_spread", spread, (inputs, self.features))
        bias_spread = self.param("bias_spread", spread, (self.features,))
        if self.has_variable("noise", "input"):
            noise = self.get_variable("noise", "output")
            kernel += kernel_spread * jnp.outer(self.get_variable("noise", "input"), noise)
            bias += bias_spread * noise
        return x @ kernel + jnp.broadcast_to(bias, (*x.shape[:-1], self.features))


def noise_sampler(network: nn.Module, spec: EnvSpec) -> SampleNoise:
    """Returns `(key, num) -> noise[num, ...]`, the `noise` collections of `num` evaluations.

    Each is given to `network.apply` beside the parameters, `{**params, "noise": noise}`. It has
    factorised noise, `sign(n) sqrt(|n|)` of standard normals n, of every `NoisyDense` layer.
    """
    params: Any = jax.eval_shape(network.init, jax.random.key(0), example_obs(spec))["params"]
    sizes: dict[tuple[str, ...], int] = {}
    leaves: Any = traverse_util.flatten_dict(params)
    for path, leaf in leaves.items():
        if path[-1] == "kernel_spread":
            sizes[*path[:-1], "input"], sizes[*path[:-1], "output"] = leaf.shape
    if not sizes:  # a network of the user's without such layers
        return lambda key, num: {}
    *ends, total = np.cumsum([*sizes.values()])

    def sample(key, num):
        def half(key):
            normal = random.normal(key, (num, -(-total // 2)))
            return jnp.sign(normal) * jnp.sqrt(jnp.abs(normal))

        # XLA stores what a loop computes; else it would draw the numbers anew for each weight.
        noise = jnp.concatenate(list(jax.lax.map(half, random.split(key))), axis=1)
        parts = jnp.split(noise[:, :total], ends, axis=1)
        return traverse_util.unflatten_dict(dict(zip(sizes, parts, strict=True)))

    return sample


class Layers(nn.Module):
    """Hidden layers, each dense, optionally normalized, and activated.

    `[..., I] -> [..., hidden_sizes[-1]]`. `noisy` makes the layers `NoisyDense`.
    """

    hidden_sizes: Sequence[int]
    activation: str = "relu"
    noisy: bool = False
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x):
        for size in self.hidden_sizes:
            x = dense(size, 2.0**0.5, self.noisy)(x)
            if self.layer_norm:
                x = nn.LayerNorm()(x)
            x = ACTIVATIONS[self.activation](x)
        return x


class QNetwork(nn.Module):
    """Action values, `[..., *obs_shape] -> [..., A]`, or `[..., A, num_outputs]`.

    All hidden layers but the last form the torso; the last one and a linear layer form a stream.
    Dueling (https://arxiv.org/abs/1511.06581, eq. 9) has two streams, `V + A - mean_a A`. In a
    noisy network the layers of the streams are noisy. Images go through a convolution first.
    """

    num_actions: int
    num_outputs: int = 0  # 0: one number for each action, without an axis
    hidden_sizes: Sequence[int] = (64, 64)
    activation: str = "relu"
    dueling: bool = False
    noisy: bool = False
    layer_norm: bool = False
    inputs: Inputs = Inputs()

    @nn.compact
    def __call__(self, obs):
        x = Encoder(self.inputs, self.activation, name="encoder")(obs)
        if self.inputs.has_images and self.layer_norm:
            x = nn.LayerNorm()(x)
        x = Layers(self.hidden_sizes[:-1], self.activation, layer_norm=self.layer_norm)(x)
        advantage = self.stream(x, self.num_actions, "advantage" if self.dueling else "value")
        if not self.dueling:
            return advantage
        value = self.stream(x, 1, "value")
        axis = advantage.ndim - 1 - (self.num_outputs > 0)
        return value + (advantage - advantage.mean(axis=axis, keepdims=True))

    def stream(self, x, num_actions, name):
        """One hidden layer and a linear output: `-> [..., num_actions]` or `[..., A, K]`."""
        last = self.hidden_sizes[-1:]
        hidden = Layers(last, self.activation, self.noisy, self.layer_norm, name=f"{name}_hidden")
        width = num_actions * max(self.num_outputs, 1)
        out = dense(width, 1.0, self.noisy, name=name)(hidden(x))
        if not self.num_outputs:
            return out
        return out.reshape(*out.shape[:-1], num_actions, self.num_outputs)


def dense(features: int, scale: float, noisy: bool, name: str | None = None) -> nn.Module:
    """Returns a dense layer with orthogonal weights, or a noisy one."""
    if noisy:
        return NoisyDense(features, name=name)
    return nn.Dense(features, kernel_init=orthogonal(scale), name=name)


def q_network(
    spec: EnvSpec, hidden_sizes: Sequence[int], activation: str = "relu", **options: Any
) -> QNetwork:
    """Returns a Q-network for the observations of an environment: vectors, images or states.

    Args:
      spec: description of the environment.
      hidden_sizes: units of each hidden layer.
      activation: a name in `networks.ACTIVATIONS`.
      options: further fields of `QNetwork`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = q_network(EnvSpec(obs_shape=(4,), num_actions=2), (64, 64), dueling=True)
      >>> params = network.init(jax.random.key(0), jnp.zeros((1, 4)))
      >>> network.apply(params, jnp.zeros((8, 4))).shape
      (8, 2)
    """
    return QNetwork(
        spec.num_actions, hidden_sizes=tuple(hidden_sizes), activation=activation,
        inputs=inputs_of(spec), **options,
    )  # fmt: skip


def check_q_network(network: Any, spec: EnvSpec, num_outputs: int = 0) -> None:
    """Checks that `network` can serve as a Q-network, without computing anything.

    Args:
      network: flax module, `obs[..., *obs_shape] -> [..., A]`, or `[..., A, num_outputs]`.
      spec: description of the environment.
      num_outputs: numbers for each action; 0 for one, without an axis.

    Raises:
      ValueError: it is no flax linen module, or its outputs have the wrong form.
    """
    obs = example_obs(spec, (2,))
    shapes = " and ".join(str(list(x.shape)) for x in jax.tree.leaves(obs))
    shape = (2, spec.num_actions, num_outputs)[: 3 if num_outputs else 2]
    wanted = f"a Q-network maps obs{shapes} to an array {list(shape)}"
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ValueError(
            f"`network` is a {kind}, but it must be a flax linen module: {wanted}"
            f"{nnx_cure(network)}."
        )
    outputs = jax.eval_shape(lambda key: network.init_with_output(key, obs)[0], jax.random.key(0))
    if not isinstance(outputs, jax.ShapeDtypeStruct):
        raise ValueError(
            f"`network` returns a {type(outputs).__name__}, but {wanted}; a network that returns "
            "(policy, value) belongs to an actor-critic agent such as ppo."
        )
    if outputs.shape != shape:
        raise ValueError(f"`network` returns an array {list(outputs.shape)}, but {wanted}.")
