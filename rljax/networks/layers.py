"""Layers that networks share: dense and convolutional torsos, and orthogonal initialization."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.types import Array, EnvSpec, Key, PyTree, RecurrentObs

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": nn.tanh, "relu": nn.relu, "swish": nn.swish, "gelu": nn.gelu, "elu": nn.elu,
}  # fmt: skip


def orthogonal(scale: float = 1.0) -> Callable[..., Array]:
    """Returns an orthogonal initializer, https://arxiv.org/abs/1312.6120, without LAPACK.

    The polar factor of a Gaussian matrix has the distribution of the orthogonal factor of its QR
    decomposition with positive diagonal (Haar). The Newton-Schulz iteration finds it with matrix
    products alone; a batched QR deadlocks under `vmap` on two cores (jax 0.10) and compiles more
    slowly. Kernels `[..., in, out]` are flattened to `[prod(..., in), out]`.

    Example:
      >>> kernel = orthogonal(2.0)(jax.random.key(0), (8, 3))
      >>> bool(jnp.allclose(kernel.T @ kernel, 4.0 * jnp.eye(3), atol=1e-4))
      True
    """

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        columns = shape[-1]
        rows = 1
        for size in shape[:-1]:
            rows *= size
        tall = (max(rows, columns), min(rows, columns))
        gaussian = jax.random.normal(key, tall, dtype)
        gram_norm = jnp.sqrt(jnp.linalg.norm(gaussian.T @ gaussian))  # >= the spectral norm

        def newton_schulz(_, x):
            return 1.5 * x - 0.5 * x @ (x.T @ x)

        x = jax.lax.fori_loop(0, 60, newton_schulz, gaussian / gram_norm)
        return scale * (x if rows >= columns else x.T).reshape(shape)

    return init


class MLP(nn.Module):
    """Dense layers, each followed by an activation: `[..., O] -> [..., hidden_sizes[-1]]`."""

    hidden_sizes: Sequence[int] = (64, 64)
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x):
        for size in self.hidden_sizes:
            dense = nn.Dense(size, kernel_init=orthogonal(2.0**0.5))
            x = ACTIVATIONS[self.activation](dense(x))
        return x


class ConvTorso(nn.Module):
    """MinAtar's torso, https://arxiv.org/abs/1903.03176: `[..., H, W, C] -> [..., features]`."""

    channels: int = 16
    hidden_sizes: Sequence[int] = (128,)
    activation: str = "relu"

    @nn.compact
    def __call__(self, x):
        leading = x.shape[:-3]
        x = x.reshape(-1, *x.shape[-3:]).astype(jnp.float32)
        # the 3 x 3 convolution is written as one matrix product: in a loop on a CPU, XLA's
        # convolution is nine times slower (measured)
        rows, columns = x.shape[-3] - 2, x.shape[-2] - 2
        patches = [x[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
        conv = nn.Dense(self.channels, kernel_init=orthogonal(2.0**0.5), name="conv")
        x = ACTIVATIONS[self.activation](conv(jnp.concatenate(patches, axis=-1)))
        x = x.reshape(*leading, -1)
        return MLP(self.hidden_sizes, self.activation)(x)


def flat_features(obs: Array, obs_rank: int, num_states: int = 0) -> Array:
    """Returns observations as vectors, `[..., *obs_shape] -> [..., F]`.

    Args:
      obs: observations `[..., *obs_shape]`.
      obs_rank: number of axes of one observation.
      num_states: number of states if observations are state indices, which become one-hot
        vectors; else 0.

    Example:
      >>> flat_features(jnp.array([2, 0]), obs_rank=0, num_states=3)
      Array([[0., 0., 1.],
             [1., 0., 0.]], dtype=float32)
    """
    if num_states:
        return jax.nn.one_hot(obs.astype(jnp.int32), num_states)
    return obs.reshape(*obs.shape[: obs.ndim - obs_rank], -1).astype(jnp.float32)


def torso_of(spec: EnvSpec, torso: str = "auto") -> str:
    """Returns the kind of torso, "conv" or "mlp"; "auto" uses "conv" for images.

    Raises:
      ValueError: "conv" for observations that are not images `[H, W, C]` of at least 3 x 3.

    Example:
      >>> torso_of(EnvSpec(obs_shape=(10, 10, 4)))
      'conv'
    """
    image = len(spec.obs_shape) == 3 and min(spec.obs_shape[:2]) >= 3
    if torso == "conv" and not image:
        raise ValueError(
            f"`torso` is 'conv', but observations of {spec.env_id} have shape {spec.obs_shape}: "
            "set `torso` to 'mlp' unless they are images [H, W, C] of at least 3 x 3."
        )
    return ("conv" if image else "mlp") if torso == "auto" else torso


def example_obs(spec: EnvSpec, batch_shape: tuple[int, ...] = (1,), memory_size: int = 0) -> PyTree:
    """Returns observations of zeros, `[*batch_shape, *obs_shape]`, to initialize networks with.

    Args:
      spec: description of the environment.
      batch_shape: leading axes.
      memory_size: size of the hidden state of a recurrent network, which takes a `RecurrentObs`.

    Example:
      >>> example_obs(EnvSpec(obs_shape=(3,)), batch_shape=(2,)).shape
      (2, 3)
    """
    dtype = jnp.int32 if spec.num_states else spec.obs_dtype
    obs = jnp.zeros((*batch_shape, *spec.obs_shape), dtype)
    return RecurrentObs(obs, jnp.zeros((*batch_shape, memory_size))) if memory_size else obs
