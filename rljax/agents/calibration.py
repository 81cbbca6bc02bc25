"""Calibration of a learned model: errors of its predictions and coverage of its intervals.

Kuleshov et al. 2018, https://arxiv.org/abs/1807.00263 (section 3.5): of the intervals that a
calibrated model predicts with probability p, a fraction p holds the outcome.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.agents.ensemble import Ensemble, Members
from rljax.ops import random
from rljax.types import Array, Key, Transition


class Calibration(NamedTuple):
    """Predictions 1 to L steps ahead, compared with what happened.

    Attributes:
      error: root mean squared error of the mean prediction, in standard deviations of each number
        over the sequences, `[L]`.
      coverage: fraction of the numbers inside the predicted interval of each level, `[L, levels]`.
    """

    error: Array
    coverage: Array


def calibration(
    ensemble: Ensemble, members: Members, sequences: Transition, key: Key, *,
    levels: Sequence[float] = (0.5, 0.9), num_samples: int = 20,
) -> Calibration:  # fmt: skip
    """Imagines sequences of real actions from their first states, and compares the observations.

    The predicted interval of level p lies between the quantiles (1 - p) / 2 and (1 + p) / 2 of
    the samples; each network of the ensemble imagines the same number of them.

    Args:
      ensemble: the model, of `agents.ensemble.make_ensemble`.
      members: its networks, `ensemble.elites(state)`, or some of them.
      sequences: consecutive real steps `[L, N]` that do not cross the end of an episode, such as
        `replay.sequences` returns.
      key: random key.
      levels: probabilities of the intervals.
      num_samples: imagined continuations of each sequence; a multiple of the number of networks.

    Raises:
      ValueError: `num_samples` is no multiple of the number of networks.
    """
    num_members = jax.tree.leaves(members.params)[0].shape[0]
    if num_samples % num_members:
        raise ValueError(
            f"`num_samples` is {num_samples}, but it must be a multiple of the {num_members} "
            "networks of the model."
        )
    length, num_sequences = sequences.reward.shape
    copies = num_samples // num_members
    rows = num_members, copies * num_sequences

    def repeated(x):
        """Returns `x[N, ...]` for each sample: `[E, copies * N, ...]`."""
        x = jnp.broadcast_to(x, (num_members, copies, *x.shape))
        return x.reshape(*rows, *x.shape[3:])

    def imagine_step(obs, inputs):
        action, key = inputs
        normal = random.normal(key, (*rows, ensemble.num_outputs))
        next_obs, _, _ = ensemble.step(members, obs, repeated(action), normal)
        return next_obs, next_obs.reshape(num_samples, *sequences.obs.shape[1:])

    inputs = sequences.action, random.split(key, length)
    _, samples = jax.lax.scan(imagine_step, repeated(sequences.obs[0]), inputs)
    outcome = sequences.next_obs
    spread = outcome.std(axis=(0, 1), keepdims=True)
    error = jnp.square((samples.mean(axis=1) - outcome) / jnp.where(spread > 0, spread, 1.0))
    bounds = [jnp.quantile(samples, jnp.array([0.5 - p / 2, 0.5 + p / 2]), axis=1) for p in levels]
    inside = jnp.stack([(low <= outcome) & (outcome <= high) for low, high in bounds], axis=-1)
    axes = tuple(range(1, outcome.ndim))
    return Calibration(jnp.sqrt(error.mean(axis=axes)), inside.mean(axis=axes))
