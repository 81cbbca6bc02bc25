"""Options of learned models, and when they are trained."""

from typing import Any

import jax.numpy as jnp

from rljax.config import config, option
from rljax.networks.layers import ACTIVATIONS
from rljax.types import Array

# of one training of the models
METRICS = ("losses/model_loss", "losses/model_error", "charts/model_epochs")


@config
class EnsembleConfig:
    """Options of a learned model; the defaults are those of MBPO (appendix C)."""

    num_models: int = option(7, "networks of the ensemble", low=1)
    num_elites: int = option(5, "networks with the smallest held-out loss, which predict", low=1)
    model_hidden_sizes: tuple[int, ...] = option(
        (200, 200, 200, 200), "units of each hidden layer of a model", low=1
    )
    model_activation: str = option(
        "swish", "activation of the hidden layers of a model", choices=tuple(ACTIVATIONS)
    )
    model_learning_rate: float = option(1e-3, "learning rate of the models", above=0)
    model_weight_decay: float = option(5e-5, "weight decay of the models", low=0)
    model_batch_size: int = option(256, "transitions per gradient step of each model", low=1)
    model_train_frequency: int = option(
        250, "environment steps between two trainings of the models", low=1
    )
    model_patience: int = option(
        5, "epochs without a smaller held-out loss after which training stops", low=1
    )
    model_max_epochs: int = option(100, "epochs of one training of the models, at most", low=1)
    model_noise: float = option(
        1.0, "scale of the predicted standard deviation when sampling; 0 ignores it", low=0
    )
    learned_bounds: bool = option(True, "learn the bounds of the predicted variance")


def trainings_due(config: Any, env_steps: Array, num_new: int) -> Array:
    """Returns 1 if the models are trained after `num_new` further environment steps, else 0, int32.

    The first training is at `learning_starts` steps, the next ones `model_train_frequency` apart.
    """

    def trainings_by(steps):
        since = steps - config.learning_starts
        return jnp.where(since < 0, 0, 1 + since // config.model_train_frequency)

    is_due = trainings_by(env_steps + num_new) > trainings_by(env_steps)
    return is_due.astype(jnp.int32)
