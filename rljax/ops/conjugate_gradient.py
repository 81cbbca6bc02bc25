"""A natural-gradient step within a trust region: solve, scale, search back."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from rljax.types import Array


def conjugate_gradient(
    product: Callable[[Array], Array], target: Array, num_iterations: int = 10,
    tolerance: float = 1e-10,
) -> Array:  # fmt: skip
    """Solves `A x = b` for a positive definite A that is known by its products, `[P] -> [P]`.

    Hestenes and Stiefel (1952), from x = 0. Exact after as many iterations as A has different
    eigenvalues; stands still once `|A x - b|^2 <= tolerance |b|^2`, at once where b is 0.
    """
    chex.assert_rank(target, 1)
    enough = tolerance * target @ target

    def iterate(_, carry):
        x, residual, direction, size = carry
        moving = size > enough
        image = product(direction)
        curvature = direction @ image
        step = jnp.where(moving, size / jnp.where(curvature > 0, curvature, jnp.inf), 0.0)
        x, residual = x + step * direction, residual - step * image
        new_size = residual @ residual
        turned = residual + new_size / jnp.where(moving, size, 1.0) * direction
        return x, residual, jnp.where(moving, turned, direction), jnp.where(moving, new_size, size)

    start = (jnp.zeros_like(target), target, target, target @ target)
    return jax.lax.fori_loop(0, num_iterations, iterate, start)[0]


def natural_step(
    product: Callable[[Array], Array], gradient: Array, target_kl: float | Array,
    num_iterations: int = 10,
) -> Array:  # fmt: skip
    """The step up a gradient that is `target_kl` long, https://arxiv.org/abs/1502.05477 (app. C).

        s = sqrt(2 delta / (x F x)) x,  where F x = g,  so that  s F s / 2 = delta

    Args:
      product: v -> F v, of the Fisher matrix `[P, P]`, damped.
      gradient: g `[P]`; where it is 0, so is the step.
    """
    direction = conjugate_gradient(product, gradient, num_iterations)
    curvature = direction @ product(direction)
    scale = jnp.sqrt(2.0 * target_kl / jnp.where(curvature > 0, curvature, jnp.inf))
    return scale * direction


def line_search(
    accept: Callable[[Array], Array], start: Array, step: Array, num_halvings: int = 10
) -> tuple[Array, Array]:
    """The first of `start + step, start + step / 2, start + step / 4, ...` that is accepted.

    Args:
      accept: `[P] -> bool`. Workers that search together must all give the same answer.
    Returns:
      The point, `start` itself where none is accepted; and the fraction taken, 0 then.
    """
    chex.assert_equal_shape([start, step])

    def searching(carry):
        count, accepted = carry
        return ~accepted & (count < num_halvings)

    def halve(carry):
        count, _ = carry
        return count + 1, accept(start + 0.5 ** (count + 1) * step)

    count, accepted = jax.lax.while_loop(searching, halve, (jnp.int32(0), accept(start + step)))
    fraction = jnp.where(accepted, 0.5**count, 0.0)
    return jnp.where(accepted, start + fraction * step, start), fraction
