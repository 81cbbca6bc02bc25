"""Residual networks with layer normalization, of SimBa, https://arxiv.org/abs/2410.09754.

A torso is a linear layer, residual blocks, and a layer normalization. Its inputs should be
standardized, as `normalize_obs` does.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from rljax.networks.encoder import Encoder, Inputs
from rljax.networks.layers import ACTIVATIONS, orthogonal

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0  # as in the code of Lee et al. 2024
EXPANSION = 4  # units of the hidden layer of a block, divided by its width


class ResidualBlock(nn.Module):
    """`x + W2 relu(W1 LayerNorm(x))`, `[..., D] -> [..., D]`; the hidden layer has 4 D units."""

    activation: str = "relu"

    @nn.compact
    def __call__(self, x):
        width, he_normal = x.shape[-1], nn.initializers.he_normal()
        hidden = nn.Dense(EXPANSION * width, kernel_init=he_normal)(nn.LayerNorm()(x))
        return x + nn.Dense(width, kernel_init=he_normal)(ACTIVATIONS[self.activation](hidden))


class ResidualTorso(nn.Module):
    """`obs[..., *obs_shape]`, and `action[..., A]` for a critic, `-> [..., D]`.

    `hidden_sizes` has one entry per residual block, all equal to D.
    """

    hidden_sizes: Sequence[int] = (512, 512)
    activation: str = "relu"
    inputs: Inputs = Inputs()

    @nn.compact
    def __call__(self, obs, *action):
        x = Encoder(self.inputs, self.activation)(obs)
        x = jnp.concatenate([x, *action], axis=-1)
        x = nn.Dense(self.hidden_sizes[0], kernel_init=orthogonal())(x)
        for _ in self.hidden_sizes:
            x = ResidualBlock(self.activation)(x)
        return nn.LayerNorm()(x)


class ResidualPolicy(nn.Module):
    """`obs[..., *obs_shape] -> (mean, log_std)`, `[..., A]` each, of the action before the tanh.

    `log_std` is scaled to its range by a tanh, and has a gradient everywhere.
    """

    torso: ResidualTorso
    action_size: int

    @nn.compact
    def __call__(self, obs):
        out = nn.Dense(2 * self.action_size, kernel_init=orthogonal())(self.torso(obs))
        mean, log_std = jnp.split(out, 2, axis=-1)
        half_range = 0.5 * (LOG_STD_MAX - LOG_STD_MIN)
        return mean, LOG_STD_MIN + half_range * (1.0 + jnp.tanh(log_std))


class ResidualCritic(nn.Module):
    """`obs[..., *obs_shape], action[..., A] -> Q[...]`."""

    torso: ResidualTorso

    @nn.compact
    def __call__(self, obs, action):
        out = nn.Dense(1, kernel_init=orthogonal())(self.torso(obs, action))
        return jnp.squeeze(out, -1)
