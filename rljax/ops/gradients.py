"""Gradients of a large minibatch, computed in parts that fit into the cache of a core."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rljax.ops import platform
from rljax.ops.optimizers import is_small
from rljax.types import Array, PyTree

ROWS, WIDE_ROWS = 256, 1024  # of a part on up to two cores; 256 rows of 64 units are 64 KiB


def num_parts(num_rows: int, params: PyTree) -> int:
    """Returns the number of equal parts in which the gradient of a minibatch is fastest.

    On a CPU the activations of many rows are written to memory and read again, which takes as long
    as the products of layers of 64 units: PPO with minibatches of 16,384 steps is 1.5 times faster
    in parts of 256. Wide networks have larger parts, whose gradients are added less often. Large
    minibatches have parts that grow with the number of cores, which share their products. On a GPU
    the minibatch is one part.

    Args:
      num_rows: rows of the minibatch.
      params: parameters of the network.

    Example:
      >>> num_parts(200, jnp.zeros(10))
      1
    """
    if jax.default_backend() != "cpu":
        return 1
    rows = ROWS if is_small(params) else WIDE_ROWS
    if num_rows > platform.SMALL_UPDATE:
        rows *= max(1, platform.num_cores() // 2)
    return next(parts for parts in range(max(1, num_rows // rows), 0, -1) if num_rows % parts == 0)


def mean_grad(
    loss: Callable[..., tuple[Array, PyTree]], params: PyTree, minibatch: PyTree, parts: int = 1
) -> tuple[PyTree, PyTree]:
    """Returns the gradient of a mean loss by its parameters, and the other results of each part.

    Args:
      loss: `(params, minibatch) -> (loss, others)`; the loss is a mean over the rows.
      params: parameters.
      minibatch: tree of arrays `[N, ...]`.
      parts: number of equal parts, computed one after the other, which must divide N. The gradient
        is the same up to rounding.

    Returns:
      The gradient, and a tree of the other results, `[parts, ...]`.

    Example:
      >>> loss = lambda params, x: (jnp.mean(params * x), {"max": jnp.max(x)})
      >>> grads, others = mean_grad(loss, jnp.float32(1), jnp.arange(4.0), parts=2)
      >>> float(grads), others["max"].tolist()
      (1.5, [1.0, 3.0])
    """
    grad = jax.grad(loss, has_aux=True)
    if parts == 1:
        grads, others = grad(params, minibatch)
        return grads, jax.tree.map(lambda x: x[None], others)

    def add(total: PyTree, part: PyTree) -> tuple[PyTree, PyTree]:
        grads, others = grad(params, part)
        return jax.tree.map(jnp.add, total, grads), others

    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), minibatch)
    total, others = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), split)
    return jax.tree.map(lambda x: x / parts, total), others
