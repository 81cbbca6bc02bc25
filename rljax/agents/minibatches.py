"""Minibatches: each epoch over a rollout is a random partition of it into minibatches."""

from typing import Any

from rljax.ops import shuffling
from rljax.types import Array, Key

# what a config counts, in the error about a run that takes too many
GRADIENT_STEPS = "gradient steps (`update_epochs` x `num_minibatches` in each update)"


def check_minibatches(config: Any) -> None:
    """Checks that a rollout divides into equal minibatches of steps, or of whole sequences.

    Raises:
      ValueError: `num_minibatches` does not divide the number of steps, or with a recurrent
        network the number of environments.
    """
    num_steps = config.num_envs * config.num_steps
    if getattr(config, "memory", "none") != "none" and config.num_envs % config.num_minibatches:
        raise ValueError(
            f"`num_minibatches` is {config.num_minibatches}, but with a recurrent network it must "
            f"divide num_envs = {config.num_envs}: a minibatch holds whole sequences."
        )
    if num_steps % config.num_minibatches:
        raise ValueError(
            f"`num_minibatches` is {config.num_minibatches}, but it must divide num_envs x "
            f"num_steps = {config.num_envs} x {config.num_steps} = {num_steps}."
        )


def gradient_steps_per_update(config: Any) -> int:
    """Returns epochs times minibatches; 1 for a config with neither."""
    return getattr(config, "update_epochs", 1) * getattr(config, "num_minibatches", 1)


def minibatch_indices(config: Any, key: Key, num_items: int) -> Array:
    """Returns the items of each minibatch of one update, `[gradient steps, items]` int32.

    Args:
      config: with `update_epochs` and `num_minibatches`, which must divide `num_items`.
      key: random key.
      num_items: number of items in the rollout.
    """
    permutations = shuffling.permutations(key, config.update_epochs, num_items)
    return permutations.reshape(gradient_steps_per_update(config), -1)
