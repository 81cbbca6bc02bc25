"""Optimizers: annealed learning rates, clipping of the global norm, and what they report."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from rljax.config import is_tracer, kind_of
from rljax.types import Array, Mean, Metrics, PyTree, identity

MAX_PACKED = 2**16  # on a CPU, packing speeds up networks of 64-64 units, but slows 256-256 down


def learning_rate_schedule(
    learning_rate: Any, num_updates: int | Array, steps_per_update: int = 1
) -> Callable[[Any], Any]:
    """Linear annealing per update: full rate in the first, rate / num_updates in the last.

    Args:
      learning_rate: initial learning rate, a scalar.
      num_updates: number of updates of the run; it may be traced.
      steps_per_update: optimizer steps (epochs x minibatches) per update, which share its rate.

    Returns:
      An optax schedule, `(number of optimizer steps) -> learning rate`; 0 after the last update.

    Example:
      >>> schedule = learning_rate_schedule(1.0, num_updates=4, steps_per_update=10)
      >>> [float(schedule(count)) for count in (0, 9, 10, 39, 40)]
      [1.0, 1.0, 0.75, 0.25, 0.0]
    """
    chex.assert_rank(learning_rate, 0)
    if not is_tracer(num_updates):
        chex.assert_scalar_positive(num_updates)
    chex.assert_scalar_positive(steps_per_update)

    def schedule(count):
        remaining = 1.0 - (count // steps_per_update) / num_updates
        return learning_rate * jnp.maximum(remaining, 0.0)

    return schedule


def clipped(
    inner: optax.GradientTransformation, max_grad_norm: Any
) -> optax.GradientTransformation:
    """Clips the global norm of the gradient (not each element), then applies `inner`.

    Up to `MAX_PACKED` parameters, both work on one vector of them all: one fused loop instead of
    one for each array.

    Example:
      >>> optimizer = clipped(optax.sgd(1.0), max_grad_norm=1.0)
      >>> grads = {"w": jnp.array([0.0, 8.0])}
      >>> optimizer.update(grads, optimizer.init(grads))[0]
      {'w': Array([-0., -1.], dtype=float32)}
    """
    check_optimizer(inner)
    chex.assert_rank(max_grad_norm, 0)
    on_tree = optax.with_extra_args_support(
        optax.chain(optax.clip_by_global_norm(max_grad_norm), inner)
    )
    on_vector = optax.flatten(on_tree)

    def init(params):
        return (on_vector if is_small(params) else on_tree).init(params)

    def update(updates, state, params=None, **extra_args):
        chosen = on_vector if is_small(updates) else on_tree
        return chosen.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init, update)


def packed(params: PyTree) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """Returns parameters in the form in which gradient steps are fastest, and the inverse.

    Up to `MAX_PACKED` parameters this is one vector, so that the optimizer is one fused loop. A
    larger tree is returned unchanged, because copying its matrices into a vector costs more time
    than the single loop saves.

    Example:
      >>> vector, unpack = packed({"w": jnp.ones((2, 2)), "b": jnp.zeros(2)})
      >>> vector.shape, unpack(vector)["w"].shape
      ((6,), (2, 2))
    """
    return ravel_pytree(params) if is_small(params) else (params, identity)


def is_small(params: PyTree) -> bool:
    """Returns whether a tree has at most `MAX_PACKED` numbers."""
    return sum(x.size for x in jax.tree.leaves(params)) <= MAX_PACKED


def check_optimizer(optimizer: Any, name: str = "optimizer") -> None:
    """Checks that the argument `name` is an optimizer.

    Raises:
      ValueError: it is not an optax `GradientTransformation`.
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            f"`{name}` is {kind_of(optimizer)}, but it must be an optax "
            "`GradientTransformation`, such as `optax.adam(1e-3)`."
        )


def apply_gradients(
    optimizer: optax.GradientTransformation, grads: PyTree, opt_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """Takes one step of an optimizer. Returns the new parameters and the new optimizer state.

    Example:
      >>> sgd = optax.sgd(0.5)
      >>> params, _ = apply_gradients(sgd, jnp.array([2.0]), sgd.init(jnp.ones(1)), jnp.ones(1))
      >>> params.tolist()
      [0.0]
    """
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def gradient_norm(grads: PyTree) -> Array:
    """Returns the global norm of a gradient, the square root of the sum of its squares, `[]`.

    It is computed as in `clipped`, and XLA merges two equal computations: beside an optimizer with
    clipping it costs nothing.

    Example:
      >>> gradient_norm({"w": jnp.array([3.0, 0.0]), "b": jnp.float32(4.0)})
      Array(5., dtype=float32)
    """
    if not is_small(grads):
        return optax.global_norm(grads)
    flat = jnp.concatenate([jnp.reshape(x, [-1]) for x in jax.tree.leaves(grads)])
    return jnp.sqrt(jnp.sum(jnp.square(flat)))


def global_norm(grads: PyTree) -> Array:
    """Returns the same as `gradient_norm`, faster beside an optimizer without clipping.

    It sums array by array; one vector of all of them would be made for the norm alone, which takes
    7 % of the time of SAC (measured on a CPU).

    Example:
      >>> global_norm({"w": jnp.array([3.0, 0.0]), "b": jnp.float32(4.0)})
      Array(5., dtype=float32)
    """
    squares = [jnp.sum(jnp.square(x)) for x in jax.tree.leaves(grads)]
    return jnp.sqrt(functools.reduce(jnp.add, squares))


def norm_of_taken_step(grads: PyTree, skipped: Array) -> Mean:
    """Returns the norm of a gradient as a metric, of weight 0 if its step is skipped.

    Args:
      grads: gradient of the step.
      skipped: whether the step is skipped, bool `[]`.
    """
    return Mean(jnp.where(skipped, 0.0, gradient_norm(grads)), jnp.where(skipped, 0.0, 1.0))


def learning_rate_metric(
    rate: Any = None, name: str = "charts/learning_rate"
) -> Callable[[PyTree], Metrics]:
    """Makes a function that reports the learning rate of the latest step of an optimizer.

    Args:
      rate: the rate that the optimizer was made with, a scalar or a schedule. None for an optimizer
        whose rate is not known; it is then reported only if the state of the optimizer holds one
        `learning_rate`, as that of `optax.inject_hyperparams` does.
      name: name of the metric.

    Returns:
      `(state of the optimizer after the step) -> metrics`, with one metric or none.

    Example:
      >>> schedule = learning_rate_schedule(1.0, num_updates=4)
      >>> sgd = optax.sgd(schedule)
      >>> _, state = sgd.update(jnp.ones(1), sgd.init(jnp.ones(1)))
      >>> {name: float(rate) for name, rate in learning_rate_metric(schedule)(state).items()}
      {'charts/learning_rate': 1.0}
      >>> learning_rate_metric()(state)
      {}
    """

    def metric(opt_state):
        value = rate
        if rate is None:
            value = _injected_learning_rate(opt_state)
        elif callable(rate):
            (state,) = _states(opt_state, optax.ScaleByScheduleState)
            value = rate(state.count - 1)
        return {} if value is None else {name: jnp.asarray(value, jnp.float32)}

    return metric


def _states(opt_state: PyTree, kind: Any) -> list[Any]:
    """Returns the parts of an optimizer's state that are instances of `kind`."""
    parts = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
    return [x for x in parts if isinstance(x, kind)]


def _injected_learning_rate(opt_state: PyTree) -> Array | None:
    """Returns the learning rate in the state of `optax.inject_hyperparams`, if there is one."""
    states = _states(opt_state, optax.InjectStatefulHyperparamsState)
    rates = [x.hyperparams["learning_rate"] for x in states if "learning_rate" in x.hyperparams]
    return rates[0] if len(rates) == 1 else None


def skip_where(skipped: Array, new: PyTree, old: PyTree) -> PyTree:
    """Undoes an optimizer step where it is skipped: parameters and moments are those before it.

    Schedules advance nevertheless. A learning rate is annealed over all steps of a run, whether
    they are taken or skipped.

    Args:
      skipped: whether the step is skipped, bool `[]`.
      new: parameters and optimizer states after the step, a tree.
      old: the same tree before the step.

    Example:
      >>> optimizer = optax.chain(optax.trace(0.9), optax.scale_by_schedule(lambda count: 0.1))
      >>> old = optimizer.init(jnp.zeros(1))
      >>> new = optimizer.update(jnp.ones(1), old)[1]
      >>> momentum, schedule = skip_where(jnp.bool_(True), new, old)
      >>> momentum.trace.tolist(), int(schedule.count)
      ([0.0], 1)
    """

    def is_schedule(x):
        return isinstance(x, optax.ScaleByScheduleState | optax.InjectStatefulHyperparamsState)

    def select(new, old):
        if isinstance(new, optax.InjectStatefulHyperparamsState):
            return new._replace(inner_state=skip_where(skipped, new.inner_state, old.inner_state))
        return new if is_schedule(new) else jnp.where(skipped, old, new)

    return jax.tree.map(select, new, old, is_leaf=is_schedule)
