"""Networks of off-policy continuous control: deterministic and squashed policies, and critics.

Actions are in [-1, 1], `[..., A]`; `policies.to_box` maps them to the bounds of the environment.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.config import kind_of
from rljax.networks.encoder import Encoder, Inputs, example_obs, inputs_of
from rljax.networks.layers import MLP, orthogonal
from rljax.networks.nnx_modules import nnx_cure
from rljax.types import Array, EnvSpec

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # as in the code of Haarnoja et al. 2018


class DeterministicPolicy(nn.Module):
    """`obs[..., *obs_shape] -> action[..., A]` in [-1, 1], squashed by a tanh."""

    action_size: int
    hidden_sizes: Sequence[int] = (256, 256)
    activation: str = "relu"
    inputs: Inputs = Inputs()

    @nn.compact
    def __call__(self, obs):
        x = Encoder(self.inputs, self.activation)(obs)
        x = MLP(self.hidden_sizes, self.activation)(x)
        return jnp.tanh(nn.Dense(self.action_size, kernel_init=orthogonal(0.01))(x))


class SquashedGaussianPolicy(nn.Module):
    """`obs[..., *obs_shape] -> (mean, log_std)`, `[..., A]` each, of the action before the tanh."""

    action_size: int
    hidden_sizes: Sequence[int] = (256, 256)
    activation: str = "relu"
    inputs: Inputs = Inputs()

    @nn.compact
    def __call__(self, obs):
        x = Encoder(self.inputs, self.activation)(obs)
        x = MLP(self.hidden_sizes, self.activation)(x)
        out = nn.Dense(2 * self.action_size, kernel_init=orthogonal(0.01))(x)
        mean, log_std = jnp.split(out, 2, axis=-1)
        return mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)


class Critic(nn.Module):
    """`obs[..., *obs_shape], action[..., A] -> Q[...]`."""

    hidden_sizes: Sequence[int] = (256, 256)
    activation: str = "relu"
    inputs: Inputs = Inputs()

    @nn.compact
    def __call__(self, obs, action):
        x = Encoder(self.inputs, self.activation)(obs)
        x = MLP(self.hidden_sizes, self.activation)(jnp.concatenate([x, action], axis=-1))
        return jnp.squeeze(nn.Dense(1, kernel_init=orthogonal(1.0))(x), -1)


def squashed_sample(mean: Array, log_std: Array, noise: Array) -> tuple[Array, Array]:
    """Samples tanh(u), u = mean + std noise, and computes its log-probability from u.

        log pi(tanh(u)) = sum_i log N(u_i; mean_i, std_i) - log(1 - tanh(u_i)^2)

    Haarnoja et al. 2018, https://arxiv.org/abs/1801.01290 (appendix C). In the form
    `2 (log 2 - u - softplus(-2 u))` the last term is exact for large |u|, where 1 - tanh(u)^2 is
    0 in float32.

    Args:
      mean, log_std: mean and logarithm of the standard deviation of u, `[..., A]`.
      noise: standard normal samples, `[..., A]`.

    Returns:
      Actions `[..., A]` in [-1, 1], and log-probabilities `[...]`.

    Example:
      >>> action, log_prob = squashed_sample(jnp.zeros(1), jnp.zeros(1), jnp.array([20.0]))
      >>> print(f"{float(action[0]):.3f} {float(log_prob):.3f}")
      1.000 -162.305
    """
    u = mean + jnp.exp(log_std) * noise
    log_normal = -0.5 * (jnp.square(noise) + math.log(2.0 * math.pi)) - log_std
    log_derivative = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
    return jnp.tanh(u), (log_normal - log_derivative).sum(axis=-1)


def action_size(spec: EnvSpec) -> int:
    """Returns A, the number of dimensions of a continuous action."""
    return math.prod(spec.action_shape)


def check_network(
    name: str, network: Any, inputs: tuple[Any, ...], outputs: tuple[int, ...] | list[Any]
) -> nn.Module:
    """Returns a network after checking its output shapes, without computing anything.

    Args:
      name: name of the argument, for the message.
      network: flax module.
      inputs: example inputs.
      outputs: the shape that it must return, or a list of shapes for a tuple of arrays.

    Raises:
      ValueError: it is no flax linen module, it raises an error, or it returns other shapes.
    """
    shapes = ", ".join(str(list(x.shape)) for x in jax.tree.leaves(inputs))
    wanted = f"it must be a flax linen module that maps {shapes} to {_show(outputs)}"
    if not isinstance(network, nn.Module):
        raise ValueError(f"`{name}` is {kind_of(network)}, but {wanted}{nnx_cure(network)}.")

    def run(key):
        return network.init_with_output(key, *inputs)[0]

    try:
        result = jax.eval_shape(run, jax.random.key(0))
    except Exception as error:
        reason = f"{type(error).__name__} ({str(error).splitlines()[0]})"
        raise ValueError(f"`{name}` raises {reason}, but {wanted}.") from error
    given = [x.shape for x in result] if isinstance(result, tuple) else getattr(result, "shape", ())
    if given != outputs:
        raise ValueError(f"`{name}` returns {_show(given)}, but {wanted}.")
    return network


def _show(shapes: Any) -> str:
    if isinstance(shapes, list):
        return "(" + ", ".join(map(_show, shapes)) + ")"
    return str(list(shapes))


def deterministic_policy(policy: Any, config: Any, spec: EnvSpec) -> nn.Module:
    """Returns `policy` after checking it, or a `DeterministicPolicy` if it is None."""
    size = action_size(spec)
    if policy is None:
        return DeterministicPolicy(size, **_fields(config, spec))
    return check_network("policy", policy, (example_obs(spec, (2,)),), (2, size))


def squashed_gaussian_policy(policy: Any, config: Any, spec: EnvSpec) -> nn.Module:
    """Returns `policy` after checking it, or a `SquashedGaussianPolicy` if it is None."""
    size = action_size(spec)
    if policy is None:
        return SquashedGaussianPolicy(size, **_fields(config, spec))
    return check_network("policy", policy, (example_obs(spec, (2,)),), [(2, size), (2, size)])


def critic_network(critic: Any, config: Any, spec: EnvSpec) -> nn.Module:
    """Returns `critic` after checking it, or a `Critic` if it is None."""
    if critic is None:
        return Critic(**_fields(config, spec))
    inputs = example_obs(spec, (2,)), jnp.zeros((2, action_size(spec)))
    return check_network("critic", critic, inputs, (2,))


def _fields(config: Any, spec: EnvSpec) -> dict[str, Any]:
    return {
        "hidden_sizes": config.hidden_sizes,
        "activation": config.activation,
        "inputs": inputs_of(spec),
    }
