"""The cross-entropy method, an optimizer without gradients, for sequences of actions.

De Boer et al. 2005, https://doi.org/10.1007/s10479-005-5724-z (section 4). In control, Chua et al.
2018 (PETS), https://arxiv.org/abs/1805.12114 (section 5 and appendix A.3).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.ops import random
from rljax.types import Array, Key, PyTree

MIN_PROBABILITY = 0.02  # of each action in a categorical proposal, shared by all actions


class Proposal(NamedTuple):
    """A family of distributions over sequences of H actions, which the method fits.

    Attributes:
      sample: `(params, key, n) -> sequences[n, H, ...]`.
      fit: `(sequences[n, H, ...]) -> params`, the maximum-likelihood parameters.
      mode: `(params) -> sequence[H, ...]`.
    """

    sample: Callable[[PyTree, Key, int], Array]
    fit: Callable[[Array], PyTree]
    mode: Callable[[PyTree], Array]


class Gaussian(NamedTuple):
    """Parameters of independent normal distributions: mean and standard deviation, `[H, A]`."""

    mean: Array
    std: Array


def gaussian() -> Proposal:
    """Returns normal distributions of continuous actions, clipped to [-1, 1]; see `Gaussian`.

    Example:
      >>> params = gaussian().fit(jnp.array([[[0.0]], [[1.0]]]))
      >>> params.mean.tolist(), params.std.tolist()
      ([[0.5]], [[0.5]])
    """

    def sample(params, key, num):
        normal = random.normal(key, (num, *params.mean.shape))
        return jnp.clip(params.mean[None] + params.std[None] * normal, -1.0, 1.0)

    def fit(sequences):
        return Gaussian(sequences.mean(axis=0), sequences.std(axis=0))

    return Proposal(sample, fit, lambda params: params.mean)


def categorical(num_actions: int) -> Proposal:
    """Returns independent categorical distributions; parameters are probabilities `[H, A]`.

    Every action keeps a small probability, so that it can be sampled again.

    Example:
      >>> import numpy as np
      >>> np.asarray(categorical(2).fit(jnp.array([[0], [0], [0], [1]]))).round(3)
      array([[0.745, 0.255]], dtype=float32)
    """

    def sample(params, key, num):
        gumbel = random.gumbel(key, (num, *params.shape))
        return (jnp.log(params)[None] + gumbel).argmax(axis=-1)

    def fit(sequences):
        frequency = jax.nn.one_hot(sequences, num_actions).mean(axis=0)
        return (1.0 - MIN_PROBABILITY) * frequency + MIN_PROBABILITY / num_actions

    return Proposal(sample, fit, lambda params: params.argmax(axis=-1))


def cross_entropy_method(
    objective: Callable[[Array, Key], Array], proposal: Proposal, params: PyTree, key: Key, *,
    num_iterations: int, num_candidates: int, num_elites: int, smoothing: Any = 0.1,
) -> PyTree:  # fmt: skip
    """Moves a distribution over sequences to where the objective is large.

    Each iteration samples candidates, fits the distribution to the best of them, and averages the
    parameters, `smoothing * old + (1 - smoothing) * fitted`.

    Args:
      objective: `(sequences[n, H, ...], key) -> values[n]`, to be maximized; it may be random.
      proposal: the family of distributions.
      params: parameters to start from.
      key: random key.
      num_iterations: number of iterations.
      num_candidates: sequences sampled in each iteration.
      num_elites: the best candidates, to which the distribution is fitted.
      smoothing: weight of the old parameters, in [0, 1).

    Returns:
      The parameters after the last iteration.

    Example:
      >>> import numpy as np
      >>> def objective(sequences, key):
      ...     return -jnp.square(sequences - 0.3).sum(axis=(1, 2))
      >>> start = Gaussian(jnp.zeros((2, 1)), jnp.ones((2, 1)))
      >>> params = cross_entropy_method(
      ...     objective, gaussian(), start, jax.random.key(0), num_iterations=10,
      ...     num_candidates=100, num_elites=10)
      >>> np.asarray(params.mean).round(2).ravel()
      array([0.3, 0.3], dtype=float32)
    """

    def iterate(params, key):
        sample_key, objective_key = random.split(key)
        candidates = proposal.sample(params, sample_key, num_candidates)
        _, best = jax.lax.top_k(objective(candidates, objective_key), num_elites)
        fitted = proposal.fit(candidates[best])
        return jax.tree.map(lambda x, y: smoothing * x + (1.0 - smoothing) * y, params, fitted), ()

    return jax.lax.scan(iterate, params, random.split(key, num_iterations))[0]
