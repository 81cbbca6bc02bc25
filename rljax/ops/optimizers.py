"""Optimizers of the usual shape: clip the global norm, adapt, step."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax


def learning_rate_schedule(
    learning_rate: Any, num_updates: int, steps_per_update: int = 1
) -> Callable[[Any], Any]:
    """Linear annealing by *update*: the first takes the full rate, the last `rate / num_updates`.

    `steps_per_update` is how many optimizer steps (epochs x minibatches) an update takes; all of
    them share its rate.
    """

    def schedule(count):
        left = 1.0 - (count // steps_per_update) / num_updates
        return learning_rate * jnp.maximum(left, 0.0)

    return schedule


def clipped(
    inner: optax.GradientTransformation, max_grad_norm: Any
) -> optax.GradientTransformation:
    """Clips the global norm (not each element), then `inner`, on one flat vector.

    One vector means one fused loop over all parameters instead of one for each array.
    """
    return optax.flatten(optax.chain(optax.clip_by_global_norm(max_grad_norm), inner))
