"""Natural-gradient steps within a trust region: conjugate gradient, scaling, line search."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from rljax.types import Array


def conjugate_gradient(
    product: Callable[[Array], Array], target: Array, num_iterations: int = 10,
    tolerance: float = 1e-10,
) -> Array:  # fmt: skip
    """Solves A x = b for a positive definite matrix A that is given by its products A v.

    Hestenes and Stiefel (1952), started at x = 0. The solution is exact after as many iterations
    as A has distinct eigenvalues. Iterations have no effect once `|A x - b|^2 <= tolerance |b|^2`.

    Args:
      product: v -> A v, `[P] -> [P]`.
      target: b, `[P]`.
      num_iterations: number of iterations, static.
      tolerance: relative squared residual at which x no longer changes.

    Returns:
      x, `[P]`.

    Example:
      >>> conjugate_gradient(lambda v: 4.0 * v, jnp.array([1.0, 2.0]))
      Array([0.25, 0.5 ], dtype=float32)
    """
    chex.assert_rank(target, 1)
    chex.assert_type(target, float)
    threshold = tolerance * target @ target

    def iterate(_, carry):
        x, residual, direction, residual_norm = carry  # the norm is squared
        active = residual_norm > threshold
        image = product(direction)
        curvature = direction @ image
        safe_curvature = jnp.where(curvature > 0, curvature, jnp.inf)
        alpha = jnp.where(active, residual_norm / safe_curvature, 0.0)
        x, residual = x + alpha * direction, residual - alpha * image
        new_norm = residual @ residual
        conjugate = residual + new_norm / jnp.where(active, residual_norm, 1.0) * direction
        return (
            x, residual,
            jnp.where(active, conjugate, direction), jnp.where(active, new_norm, residual_norm),
        )  # fmt: skip

    start = (jnp.zeros_like(target), target, target, target @ target)
    return jax.lax.fori_loop(0, num_iterations, iterate, start)[0]


def natural_step(
    product: Callable[[Array], Array], gradient: Array, target_kl: float | Array,
    num_iterations: int = 10,
) -> Array:  # fmt: skip
    """The natural-gradient step of KL `target_kl`, https://arxiv.org/abs/1502.05477 (app. C).

        s = sqrt(2 delta / (x F x)) x,  where F x = g,  so that  s F s / 2 = delta

    Args:
      product: v -> F v, `[P] -> [P]`, with the damped Fisher matrix F.
      gradient: g, `[P]`; a zero gradient gives a zero step.
      target_kl: delta, the KL of the step to second order.
      num_iterations: iterations of conjugate gradient.

    Returns:
      The step s, `[P]`.

    Example:
      >>> natural_step(lambda v: v, jnp.array([4.0, 0.0]), target_kl=0.5)
      Array([1., 0.], dtype=float32)
    """
    chex.assert_rank(gradient, 1)
    chex.assert_type(gradient, float)
    direction = conjugate_gradient(product, gradient, num_iterations)
    curvature = direction @ product(direction)
    scale = jnp.sqrt(2.0 * target_kl / jnp.where(curvature > 0, curvature, jnp.inf))
    return scale * direction


def line_search(
    accept: Callable[[Array], Array], start: Array, step: Array, num_halvings: int = 10
) -> tuple[Array, Array]:
    """Backtracking line search: the first accepted of start + step, start + step / 2, ...

    Args:
      accept: `[P] -> bool`. Parallel workers must all return the same value.
      start: `[P]`.
      step: full step, `[P]`.
      num_halvings: maximum number of halvings.

    Returns:
      The accepted point and the accepted fraction of the step. If none is accepted, `start`
      itself and 0.

    Example:
      >>> point, fraction = line_search(lambda x: x[0] < 0.3, jnp.zeros(1), jnp.ones(1))
      >>> point
      Array([0.25], dtype=float32)
    """
    chex.assert_equal_shape([start, step])
    chex.assert_rank(start, 1)
    chex.assert_type([start, step], float)

    def is_searching(carry):
        count, accepted = carry
        return ~accepted & (count < num_halvings)

    def halve(carry):
        count, _ = carry
        return count + 1, accept(start + 0.5 ** (count + 1) * step)

    count, accepted = jax.lax.while_loop(is_searching, halve, (jnp.int32(0), accept(start + step)))
    fraction = jnp.where(accepted, 0.5**count, 0.0)
    return jnp.where(accepted, start + fraction * step, start), fraction
