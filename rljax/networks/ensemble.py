"""Networks of a learned model: what an environment does next, as a normal distribution."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks.layers import ACTIVATIONS
from rljax.types import Array, PyTree, identity

MAX_LOG_VARIANCE, MIN_LOG_VARIANCE = 0.5, -10.0  # initial bounds, as in the code of Chua et al.
ROUNDING = 1e-5  # relative, of a mean in float32


class Prediction(NamedTuple):
    """The distribution that a model predicts.

    Attributes:
      mean: `[..., O]`.
      log_variance: logarithm of the variance, `[..., O]`.
      termination: logit of the probability that the episode terminates, `[...]`.
    """

    mean: Array
    log_variance: Array
    termination: Array


class GaussianModel(nn.Module):
    """`inputs[..., D] -> Prediction` of O numbers.

    Chua et al. 2018, https://arxiv.org/abs/1805.12114 (appendix A.1). The logarithm of the
    variance is bounded smoothly. Learned bounds are parameters, which the loss pulls together; so
    far from the data the variance stays in the range seen in training.

    Attributes:
      num_outputs: O.
      hidden_sizes: units of each hidden layer.
      activation: activation of the hidden layers.
      learned_bounds: whether the bounds of the variance are learned.
    """

    num_outputs: int
    hidden_sizes: Sequence[int] = (200, 200, 200, 200)
    activation: str = "swish"
    learned_bounds: bool = True

    @nn.compact
    def __call__(self, inputs):
        x = inputs
        for size in self.hidden_sizes:
            dense = nn.Dense(size, kernel_init=nn.initializers.truncated_normal(_std(x)))
            x = ACTIVATIONS[self.activation](dense(x))
        size = self.num_outputs
        out = nn.Dense(2 * size + 1, kernel_init=nn.initializers.truncated_normal(_std(x)))(x)
        mean, log_variance, termination = jnp.split(out, [size, 2 * size], axis=-1)
        low, high = (jnp.broadcast_to(bound, mean.shape) for bound in self._bounds())
        log_variance = high - jax.nn.softplus(high - log_variance)
        log_variance = low + jax.nn.softplus(log_variance - low)
        return Prediction(mean, log_variance, termination[..., 0])

    def _bounds(self):
        shape = (self.num_outputs,)
        if not self.learned_bounds:
            return jnp.full(shape, MIN_LOG_VARIANCE), jnp.full(shape, MAX_LOG_VARIANCE)
        low = self.param("min_log_variance", nn.initializers.constant(MIN_LOG_VARIANCE), shape)
        high = self.param("max_log_variance", nn.initializers.constant(MAX_LOG_VARIANCE), shape)
        return low, high


def _std(x: Array) -> float:
    """Returns 1 / (2 sqrt(D)), the standard deviation of weights for inputs `[..., D]`."""
    return 0.5 * x.shape[-1] ** -0.5


def negative_log_likelihood(prediction: Prediction, targets: Array) -> Array:
    """Returns twice the negative log-likelihood of numbers `[..., O]`, without its constant.

        (mean - y)^2 / variance + log variance

    Chua et al. 2018, https://arxiv.org/abs/1805.12114 (eq. 1).

    Example:
      >>> prediction = Prediction(jnp.zeros(1), jnp.zeros(1), jnp.zeros(()))
      >>> negative_log_likelihood(prediction, jnp.array([2.0])).tolist()
      [4.0]
    """
    squared = jnp.square(prediction.mean - targets)
    return squared * jnp.exp(-prediction.log_variance) + prediction.log_variance


class Scale(NamedTuple):
    """Mean and standard deviation of numbers, `[D]`."""

    mean: Array
    std: Array


def scale_of(
    x: Array, is_filled: Array, average: Callable[[PyTree], PyTree] = identity
) -> Scale:  # fmt: skip
    """Returns the mean and standard deviation of the rows of `x[C, D]` where `is_filled[C]`.

    The standard deviation of numbers that are constant, up to rounding, is 1.

    Example:
      >>> scale = scale_of(jnp.array([[1.0], [3.0], [99.0]]), jnp.array([True, True, False]))
      >>> scale.mean.tolist(), scale.std.tolist()
      ([2.0], [1.0])
    """
    weight = is_filled.astype(jnp.float32)
    weight /= jnp.maximum(weight.sum(), 1.0)
    mean = average(weight @ x)
    variance = average(weight @ jnp.square(x - mean[None]))
    std = jnp.sqrt(variance)
    return Scale(mean, jnp.where(std > ROUNDING * (1.0 + jnp.abs(mean)), std, 1.0))


def standardize(x: Array, scale: Scale) -> Array:
    """Returns `(x - mean) / std`, `[..., D]`."""
    mean, std = (jnp.broadcast_to(s, x.shape) for s in scale)
    return (x - mean) / std
