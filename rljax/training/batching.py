"""Functions of one run mapped over many, and choices between the states of many runs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import PyTree, Shared


def over_runs(function: Callable[..., PyTree], width: int) -> Callable[..., PyTree]:
    """Maps a function over the leading axis of its first argument; the others are shared.

    A single run is not batched by `vmap`: matrix products without a batch axis are faster.
    `types.Shared` numbers enter the function without a batch axis and return with one.

    Args:
      function: of one run.
      width: number of runs.

    Returns:
      The function of `width` runs.
    """

    def is_shared(x):
        return isinstance(x, Shared)

    def mapped(tree, *shared):
        if width > 1:
            axes = jax.tree.map(lambda x: None if is_shared(x) else 0, tree, is_leaf=is_shared)
            tree = jax.tree.map(
                lambda x: jax.tree.map(lambda y: y[0], x) if is_shared(x) else x, tree,
                is_leaf=is_shared,
            )  # fmt: skip
            return jax.vmap(lambda run: function(run, *shared), in_axes=(axes,))(tree)
        out = function(jax.tree.map(lambda x: x[0], tree), *shared)
        return jax.tree.map(lambda x: x[None], out)

    return mapped


def choose(is_first: np.ndarray, first: PyTree, second: PyTree) -> PyTree:
    """Returns the entries of `first` where `is_first` `[E]`, and else those of `second`.

    Counters that all runs share (`types.Shared`) are those of `second`.
    """

    def one_leaf(x, y):
        if isinstance(y, Shared):
            return y
        return jnp.where(is_first.reshape(-1, *[1] * (y.ndim - 1)), x, y)

    return jax.tree.map(one_leaf, first, second, is_leaf=lambda x: isinstance(x, Shared))
