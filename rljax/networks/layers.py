"""Layers that networks share: hidden layers, activations, orthogonal initialization."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.types import Array, Key

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
