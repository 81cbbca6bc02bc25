"""Checks of replay buffers: their sizes, the memory they need, and the functions they have."""

from typing import Any

import jax
import jax.numpy as jnp

from rljax.config import kind_of
from rljax.ops.memory import device_bytes, readable, tree_bytes
from rljax.types import Array, PyTree, Replay


def check_replay(replay: Any) -> None:
    """Checks that an object is a replay buffer that agents can use.

    Raises:
      ValueError: it is not a `rljax.types.Replay`, or one of its functions is missing.
    """
    missing = [name for name in Replay._fields if not callable(getattr(replay, name, None))]
    if isinstance(replay, Replay) and not missing:
        return
    lack = f" without the function `{missing[0]}`" if missing else ""
    raise ValueError(
        f"`replay` is {kind_of(replay)}{lack}, but it must be a `rljax.types.Replay`, such as "
        "`rljax.replay.uniform(capacity, batch_size)` returns."
    )


def check_sizes(capacity: int, batch_size: int) -> None:
    """Checks that a buffer of `capacity` slots can be sampled in batches of `batch_size`.

    Raises:
      ValueError: `capacity` or `batch_size` is below 1, or the batch is larger than the buffer.
    """
    for name, value in (("capacity", capacity), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` is {value}, but it must be at least 1.")
    if batch_size > capacity:
        raise ValueError(
            f"`batch_size` is {batch_size}, but the replay buffer has only {capacity} slots: make "
            "the batch smaller or the capacity larger."
        )


def check_memory(capacity: int, item: PyTree, name: str = "capacity") -> None:
    """Checks that the machine has the memory for the buffer of one run, before it is allocated.

    Args:
      capacity: number of slots.
      item: one item, or its shapes and dtypes.
      name: name of the option that sets the capacity, for the message.

    Raises:
      ValueError: the items need more memory than the machine has, or there are too many slots.
    """
    item_bytes = tree_bytes(shapes(item))
    limit = device_bytes()
    if limit is not None and capacity * item_bytes > limit:
        raise ValueError(
            f"`{name}` is {capacity:,}, but that many items of {item_bytes:,} bytes need "
            f"{readable(capacity * item_bytes)} of memory and this machine has "
            f"{readable(limit)}: make it smaller than {limit // item_bytes:,}."
        )
    if capacity > 2**30:  # slots are int32, and so is the sum of two
        raise ValueError(f"`{name}` is {capacity:,}, but it must be at most {2**30:,}.")


def shapes(item: PyTree) -> PyTree:
    """Returns the shapes and dtypes of an item; of shapes and dtypes, the same."""
    return jax.eval_shape(lambda: jax.tree.map(_zeros, item))


def _zeros(x: Any) -> Array:
    return jnp.zeros(x.shape, x.dtype) if hasattr(x, "dtype") else jnp.zeros_like(x)
