"""Quantities that show whether training is healthy. They are reported and change nothing."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from rljax.types import Array, Mean, PyTree, identity

SATURATED = 0.99  # of half the range of an action


def explained_variance(
    value: Array, target: Array, average: Callable[[PyTree], PyTree] = identity,
    mean: Callable[[Array], Array] = jnp.mean,
) -> Mean:  # fmt: skip
    """The fraction of the variance of the value targets that the values explain.

        1 - Var(target - value) / Var(target)

    1 for values equal to the targets, 0 for values that are all equal, negative for worse ones.
    The variances are summed over updates before they are divided, so an update with nearly equal
    targets has little weight; without any variance of the targets the metric is NaN.

    Args:
      value: value estimates, `[...]`.
      target: value targets, `[...]`.
      average: mean over workers; the variances are those of the samples of all workers.
      mean: mean over the samples of one worker.

    Returns:
      The metric, of weight Var(target).

    Example:
      >>> value, target = jnp.array([0.0, 1.0, 2.0]), jnp.array([0.0, 2.0, 4.0])
      >>> total, weight = explained_variance(value, target)
      >>> round(float(total / weight), 4)
      0.75
    """

    def variance(x):
        x = x - average(x.ravel()[0])  # equal numbers have the variance 0, not a rounding error
        return average(mean(jnp.square(x - average(mean(x)))))

    total = variance(target)
    return Mean(total - variance(target - value), total)


def action_saturation(action: Array) -> Array:
    """Returns the fraction of action components that saturate: within 1 % of a bound or outside.

        mean(|a| >= 0.99)

    Args:
      action: in units of half the range of an action, so that the bounds are -1 and 1, before it
        is clipped, `[..., A]`.

    Example:
      >>> action_saturation(jnp.array([[0.5, -1.0], [0.999, 3.0]]))
      Array(0.75, dtype=float32)
    """
    return (jnp.abs(action) >= SATURATED).mean()


def q_value_metrics(q: Array) -> dict[str, Array]:
    """Returns the mean and the maximum of the action values of a batch, `[...]`.

    Example:
      >>> {name: float(x) for name, x in q_value_metrics(jnp.array([1.0, 3.0, 2.0])).items()}
      {'losses/q_value': 2.0, 'losses/q_value_max': 3.0}
    """
    return {"losses/q_value": q.mean(), "losses/q_value_max": q.max()}


def spread_of_values(extras: Any) -> dict[str, Array]:
    """Returns the standard deviation of the values of a rollout, if it has more than one.

    It is exactly 0 if all values are equal. Those of different observations are equal if all units
    of a layer of ReLUs are dead: the outputs are then constant, and so are the layers below, which
    get no gradient.

    Args:
      extras: extras of a rollout, whose `value` are value estimates of its observations, `[T, B]`.

    Example:
      >>> spread_of_values({"value": jnp.array([[1.0, 3.0]])})
      {'losses/value_std': Array(1., dtype=float32)}
    """
    value = extras.get("value") if isinstance(extras, dict) else None
    if value is None or value.size < 2:
        return {}
    value = value - value.ravel()[0]  # equal numbers have the deviation 0, not a rounding error
    return {"losses/value_std": value.std()}
