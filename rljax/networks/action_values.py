"""Flax modules for action values: `obs[..., *obs_shape] -> [..., A]`, or `[..., A, K]`.

Whatever does that can be given as `network=` to the agents that learn action values.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks.layers import ACTIVATIONS, ConvTorso, flat_features, orthogonal
from rljax.types import EnvSpec


class NoisyDense(nn.Module):
    """A dense layer with learned noise, https://arxiv.org/abs/1706.10295 (eqs. 9 to 11).

        (w + s_w * e_out e_in^T) x + b + s_b * e_out

    Factorised noise, `e = sign(n) sqrt(|n|)`, drawn for each row of the batch. Without a
    `noise` stream (`apply(..., rngs={"noise": key})`) the layer is its mean.
    `[..., I] -> [..., O]`.
    """

    features: int
    sigma: float = 0.5  # of the noise at first, over the root of the inputs

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
        mean = x @ kernel + jnp.broadcast_to(bias, (*x.shape[:-1], self.features))
        if not self.has_rng("noise"):
            return mean
        entering, leaving = self._noise(x.shape), self._noise(mean.shape)
        spread = (x * entering) @ kernel_spread + jnp.broadcast_to(bias_spread, mean.shape)
        return mean + leaving * spread

    def _noise(self, shape):
        normal = jax.random.normal(self.make_rng("noise"), shape)
        return jnp.sign(normal) * jnp.sqrt(jnp.abs(normal))


class Layers(nn.Module):
    """Dense layers, each with its activation and, where asked for, its normalisation before it."""

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
    """Action values, or `num_outputs` numbers for each action.

    A stream of the last hidden layer and a linear one follows a torso of the others. Dueling
    (https://arxiv.org/abs/1511.06581, eq. 9): two streams, `V + A - mean_a A`. Noisy: the layers of
    the streams are. Images have a convolution before the torso (see `networks.ConvTorso`).
    """

    num_actions: int
    num_outputs: int = 0  # 0: one number for each action, without an axis
    hidden_sizes: Sequence[int] = (64, 64)
    activation: str = "relu"
    dueling: bool = False
    noisy: bool = False
    layer_norm: bool = False
    image: bool = False
    obs_rank: int = 1  # axes of an observation
    num_states: int = 0  # where observations are the numbers of states

    @nn.compact
    def __call__(self, obs):
        if self.image:
            x = ConvTorso(hidden_sizes=(), activation=self.activation)(obs)
            x = nn.LayerNorm()(x) if self.layer_norm else x
        else:
            x = flat_features(obs, self.obs_rank, self.num_states)
        x = Layers(self.hidden_sizes[:-1], self.activation, layer_norm=self.layer_norm)(x)
        advantage = self.stream(x, self.num_actions, "advantage" if self.dueling else "value")
        if not self.dueling:
            return advantage
        value = self.stream(x, 1, "value")
        axis = advantage.ndim - 1 - (self.num_outputs > 0)
        return value + (advantage - advantage.mean(axis=axis, keepdims=True))

    def stream(self, x, num_actions, name):
        last = self.hidden_sizes[-1:]
        hidden = Layers(last, self.activation, self.noisy, self.layer_norm, name=f"{name}_hidden")
        width = num_actions * max(self.num_outputs, 1)
        out = dense(width, 1.0, self.noisy, name=name)(hidden(x))
        if not self.num_outputs:
            return out
        return out.reshape(*out.shape[:-1], num_actions, self.num_outputs)


def dense(features: int, scale: float, noisy: bool, name: str | None = None) -> nn.Module:
    """A linear layer, noisy or with orthogonal weights."""
    if noisy:
        return NoisyDense(features, name=name)
    return nn.Dense(features, kernel_init=orthogonal(scale), name=name)


def q_network(
    spec: EnvSpec, hidden_sizes: Sequence[int], activation: str, **options: Any
) -> QNetwork:
    """The network of action values that fits an environment: numbered states, vector or image."""
    rank = len(spec.obs_shape)
    image = rank == 3 and min(spec.obs_shape[:2]) >= 3
    return QNetwork(
        spec.num_actions, hidden_sizes=tuple(hidden_sizes), activation=activation, image=image,
        obs_rank=rank, num_states=spec.num_states, **options,
    )  # fmt: skip
