"""Layers that networks share: dense and convolutional torsos, and orthogonal initialization."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.types import Array, EnvSpec, Key

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": nn.tanh, "relu": nn.relu, "swish": nn.swish, "gelu": nn.gelu, "elu": nn.elu,
}  # fmt: skip


def orthogonal(scale: float = 1.0) -> Callable[..., Array]:
    """Orthogonal initialisation, https://arxiv.org/abs/1312.6120, without LAPACK.

    The polar factor of a Gaussian matrix is distributed as the orthogonal factor of its QR
    decomposition with positive diagonal (Haar); Newton and Schulz' iteration finds it with
    matrix products alone. A batched QR deadlocks under `vmap` on two cores (jax 0.10), and
    takes longer to compile. Kernels `[..., in, out]` are flattened to `[prod(...) in, out]`.
    """

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        columns = shape[-1]
        rows = 1
        for size in shape[:-1]:
            rows *= size
        tall = (max(rows, columns), min(rows, columns))
        gaussian = jax.random.normal(key, tall, dtype)
        gram_norm = jnp.sqrt(jnp.linalg.norm(gaussian.T @ gaussian))  # >= the spectral norm

        def sharpen(_, x):
            return 1.5 * x - 0.5 * x @ (x.T @ x)

        x = jax.lax.fori_loop(0, 60, sharpen, gaussian / gram_norm)
        return scale * (x if rows >= columns else x.T).reshape(shape)

    return init


class MLP(nn.Module):
    """`[..., O] -> [..., hidden_sizes[-1]]`, an activation after each layer."""

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
        # a 3 x 3 convolution as one product: inside a loop XLA's own is nine times slower on a CPU
        rows, columns = x.shape[-3] - 2, x.shape[-2] - 2
        patches = [x[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
        conv = nn.Dense(self.channels, kernel_init=orthogonal(2.0**0.5), name="conv")
        x = ACTIVATIONS[self.activation](conv(jnp.concatenate(patches, axis=-1)))
        x = x.reshape(*leading, -1)
        return MLP(self.hidden_sizes, self.activation)(x)


def flat_features(obs: Array, obs_rank: int, num_states: int = 0) -> Array:
    """Observations as vectors: `[..., *obs_shape] -> [..., F]`; a state's number as one-hot."""
    if num_states:
        return jax.nn.one_hot(obs.astype(jnp.int32), num_states)
    return obs.reshape(*obs.shape[: obs.ndim - obs_rank], -1).astype(jnp.float32)


def torso_of(spec: EnvSpec, torso: str = "auto") -> str:
    """ "conv" or "mlp"; "auto" takes the convolution where observations are images.

    Raises:
      ValueError: a convolution over observations that are no image `[H, W, C]` of 3 x 3 or more.
    """
    image = len(spec.obs_shape) == 3 and min(spec.obs_shape[:2]) >= 3
    if torso == "conv" and not image:
        raise ValueError(
            f"`torso` is 'conv', but {spec.env_id} observes {spec.obs_shape}: take 'mlp' where "
            "observations are no image [H, W, C] of 3 x 3 or more."
        )
    return ("conv" if image else "mlp") if torso == "auto" else torso
