"""Convolutions over images `[..., H, W, C]`, of MinAtar and of the DQN paper.

A convolution is computed as one product of patches and weights. On a CPU, the gradient of XLA's
convolution in a loop is 7 to 90 times slower (measured for 84 x 84 images, batches of 8 to 256).
"""

import flax.linen as nn
import jax.numpy as jnp

from rljax.networks.layers import ACTIVATIONS, orthogonal
from rljax.types import Array

NATURE_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, size of the kernel, stride
NATURE_SIDE = 36  # smallest image: the last of the three layers then has one position


def convolution_of(shape: tuple[int, ...]) -> str:
    """Returns "nature" for images `[H, W, C]` from 36 x 36, "minatar" from 3 x 3, else ""."""
    if len(shape) != 3 or min(shape[:2]) < 3:
        return ""
    return "nature" if min(shape[:2]) >= NATURE_SIDE else "minatar"


def patches(x: Array, size: int, stride: int) -> Array:
    """Returns the patches that a convolution without padding multiplies by its kernel.

    Args:
      x: images `[N, H, W, C]`.
      size: side of the kernel, a multiple of the stride.
      stride: distance between two patches.

    Returns:
      `[N, (H - size) // stride + 1, (W - size) // stride + 1, size * size * C]`.

    Example:
      >>> patches(jnp.arange(16.0).reshape(1, 4, 4, 1), size=2, stride=2)[0, 0, 1].tolist()
      [2.0, 3.0, 6.0, 7.0]
    """
    count, height, width, channels = x.shape
    blocks = size // stride  # a patch is a square of blocks of side `stride`
    rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
    tall, wide = rows + blocks - 1, columns + blocks - 1
    x = x[:, : tall * stride, : wide * stride]
    x = x.reshape(count, tall, stride, wide, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(count, tall, wide, stride * stride * channels)
    parts = [x[:, i : i + rows, j : j + columns] for i in range(blocks) for j in range(blocks)]
    return jnp.concatenate(parts, axis=-1)


class MinAtarConvolution(nn.Module):
    """The convolution of MinAtar, https://arxiv.org/abs/1903.03176: `[..., H, W, C] -> [..., F]`.

    3 x 3, stride 1, 16 channels.
    """

    channels: int = 16
    activation: str = "relu"

    @nn.compact
    def __call__(self, x):
        leading = x.shape[:-3]
        x = patches(x.reshape(-1, *x.shape[-3:]).astype(jnp.float32), size=3, stride=1)
        conv = nn.Dense(self.channels, kernel_init=orthogonal(2.0**0.5), name="conv")
        return ACTIVATIONS[self.activation](conv(x)).reshape(*leading, -1)


class NatureConvolution(nn.Module):
    """The convolutions of DQN, https://doi.org/10.1038/nature14236: `[..., H, W, C] -> [..., F]`.

    Three layers of 32, 64 and 64 channels. Pixels, uint8, are divided by 255. F is 3136 for images
    of 84 x 84; the hidden layer of 512 units that follows in the paper is not part of it.
    """

    activation: str = "relu"

    @nn.compact
    def __call__(self, x):
        leading = x.shape[:-3]
        x = x.reshape(-1, *x.shape[-3:])
        x = x.astype(jnp.float32) / (255.0 if x.dtype == jnp.uint8 else 1.0)
        for i, (channels, size, stride) in enumerate(NATURE_LAYERS):
            conv = nn.Dense(channels, kernel_init=orthogonal(2.0**0.5), name=f"conv_{i}")
            x = ACTIVATIONS[self.activation](conv(patches(x, size, stride)))
        return x.reshape(*leading, -1)
