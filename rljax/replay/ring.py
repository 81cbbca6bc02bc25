"""A ring of items, each leaf with its own type: what all kinds of replay store their items in."""

import dataclasses
import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import Array, PyTree, Shared

NOWHERE = np.iinfo(np.int32).max  # a slot beyond every ring and tree: what goes there is left out


class Field(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Layout:
    """How an item is made up. It is structure, not data: it has no leaves."""

    structure: Any
    fields: tuple[Field, ...]


class Ring(NamedTuple):
    """The oldest item is at `cursor` once the ring is full.

    An item is a row of words: its fields side by side, as bits, an array for each size of word. So
    an item is read or written at one place, in less than half the time of six fields apart.
    """

    words: dict[str, Array]  # [capacity, W] uint8, uint32, ...
    layout: Layout
    cursor: Shared  # int32, below the capacity: the slot of the next item
    size: Shared  # int32, up to the capacity


def check_sizes(capacity: int, batch_size: int) -> None:
    """That batches can be drawn from a ring.

    Raises:
      ValueError: `capacity` or `batch_size` is below 1, or the batch is the larger.
    """
    for name, value in (("capacity", capacity), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` is {value}, but it must be at least 1.")
    if batch_size > capacity:
        raise ValueError(
            f"`batch_size` is {batch_size}, but replay holds only {capacity} items: make the batch "
            "smaller or the capacity larger."
        )


def check_option(name: str, value: Any, low: float, high: float, *, above: bool = False) -> None:
    """That a float is in its range, `above` its lower end or from it; tracers pass.

    Raises:
      ValueError: it is not.
    """
    try:
        value = float(value)
    except jax.errors.ConcretizationTypeError:
        return
    if not low <= value <= high or (above and value == low):
        bounds = f"above {low}" if above else f"at least {low}"
        bounds += "" if np.isinf(high) else f" and at most {high}"
        raise ValueError(f"`{name}` is {value:g}, but it must be {bounds}.")


def check_memory(capacity: int, item: PyTree, name: str = "capacity") -> None:
    """That the machine has the memory for so many items (of one run), before any is allocated.

    Args:
      item: one item, or its shapes and types.
      name: what the caller's user calls the capacity.
    Raises:
      ValueError: it has not.
    """
    one = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes(item)))
    limit = _memory()
    if limit is not None and capacity * one > limit:
        raise ValueError(
            f"`{name}` is {capacity:,}, but so many items of {one:,} bytes need "
            f"{_readable(capacity * one)} of memory and this machine has {_readable(limit)}: "
            f"make it smaller than {limit // one:,}."
        )
    if capacity > 2**30:  # slots are int32, and so is the sum of two
        raise ValueError(f"`{name}` is {capacity:,}, but it must be at most {2**30:,}.")


def shapes(item: PyTree) -> PyTree:
    """The shapes and types of an item, or those that it already is."""
    return jax.eval_shape(lambda: jax.tree.map(_zeros, item))


def init(capacity: int, item: PyTree) -> Ring:
    """An empty ring for items such as this one, which may be shapes alone."""
    check_memory(capacity, item)
    leaves, structure = jax.tree.flatten(shapes(item))
    layout = Layout(structure, tuple(Field(x.shape, x.dtype) for x in leaves))
    one = jax.eval_shape(lambda: _pack([jnp.zeros((1, *x.shape), x.dtype) for x in leaves]))
    words = {kind: jnp.zeros((capacity, x.shape[1]), x.dtype) for kind, x in one.items()}
    return Ring(words, layout, Shared(jnp.int32(0)), Shared(jnp.int32(0)))


def add(ring: Ring, items: PyTree, skip: Array | int = 0) -> tuple[Ring, Array]:
    """Stores `items[T, B]` over the oldest, all but the first `skip` of them in that order.

    Returns: the ring, and the slots `[T * B]` int32, `NOWHERE` for what was skipped.
    Raises:
      ValueError: there are more items than the ring has slots.
    """
    num_steps, num_envs = jax.tree.leaves(items)[0].shape[:2]
    capacity, count = jax.tree.leaves(ring.words)[0].shape[0], num_steps * num_envs
    if count > capacity:
        raise ValueError(
            f"{num_steps} x {num_envs} = {count} items are added at once, but replay holds only "
            f"{capacity}: make its capacity larger, or the rollouts shorter."
        )
    places = jnp.arange(count, dtype=jnp.int32) - skip
    slots = jnp.where(places < 0, NOWHERE, (ring.cursor.value + places) % capacity)
    stored = jnp.int32(count - skip)

    def in_rows(x, field):
        return x.astype(field.dtype).reshape(count, *field.shape)

    fields = ring.layout.structure.flatten_up_to(items)
    new = _pack(list(map(in_rows, fields, ring.layout.fields)))
    words = {kind: x.at[slots].set(new[kind], mode="drop") for kind, x in ring.words.items()}
    cursor = (ring.cursor.value + stored) % capacity
    size = jnp.minimum(ring.size.value + stored, capacity)
    return Ring(words, ring.layout, Shared(cursor), Shared(size)), slots


def read(ring: Ring, indices: Array) -> PyTree:
    """The items in these slots, `[N, ...]`."""
    rows = {k: x.at[indices].get(mode="promise_in_bounds") for k, x in ring.words.items()}
    return _unpack(rows, ring.layout)


def contents(ring: Ring) -> PyTree:
    """All slots in their order, `[capacity, ...]`, zeros where there is no item yet."""
    return _unpack(ring.words, ring.layout)


def _word(dtype: np.dtype) -> np.dtype:
    """What holds the bits of a type: unsigned integers of its size, or else the type itself."""
    return np.dtype(f"uint{8 * dtype.itemsize}") if dtype.kind in "biuf" else dtype


def _pack(fields: list[Array]) -> dict[str, Array]:
    """Fields `[N, ...]` side by side: `[N, W]` for each size of word."""
    parts: dict[str, list[Array]] = {}
    for field in fields:
        word = _word(field.dtype)
        is_bits = field.dtype == bool or word == field.dtype
        bits = field.astype(word) if is_bits else jax.lax.bitcast_convert_type(field, word)
        width = math.prod(field.shape[1:])
        parts.setdefault(word.name, []).append(bits.reshape(field.shape[0], width))
    return {kind: jnp.concatenate(columns, axis=1) for kind, columns in parts.items()}


def _unpack(words: dict[str, Array], layout: Layout) -> PyTree:
    """The items that `_pack` put side by side."""
    fields, begin = [], dict.fromkeys(words, 0)
    for field in layout.fields:
        kind, width = _word(field.dtype).name, math.prod(field.shape)
        bits = words[kind][:, begin[kind] : begin[kind] + width]
        begin[kind] += width
        if field.dtype == bool or field.dtype == bits.dtype:
            bits = bits.astype(field.dtype)
        else:
            bits = jax.lax.bitcast_convert_type(bits, field.dtype)
        fields.append(bits.reshape(bits.shape[0], *field.shape))
    return jax.tree.unflatten(layout.structure, fields)


def _zeros(x: Any) -> Array:
    return jnp.zeros(x.shape, x.dtype) if hasattr(x, "dtype") else jnp.zeros_like(x)


def _memory() -> int | None:
    """The bytes of memory of the device that arrays go to, where it is known."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def _readable(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.3g} TiB" if count < 1024 else f"{count:,.0f} TiB"
