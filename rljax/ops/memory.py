"""Memory of arrays and of the machine, in bytes."""

import math
import os
from typing import Any

import jax

from rljax.types import PyTree


def tree_bytes(tree: PyTree) -> int:
    """Returns the bytes of all leaves of a tree of arrays, or of their shapes and dtypes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def program_bytes(compiled: Any) -> int | None:
    """Returns the bytes that a compiled program of JAX needs, or None if XLA does not say.

    They are those of its arguments, its results and its intermediate values.
    """
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return sizes.argument_size_in_bytes + results + sizes.temp_size_in_bytes


def device_bytes() -> int | None:
    """Returns the memory of the default device in bytes; None if it is unknown."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def readable(count: float) -> str:
    """Returns a number of bytes with its unit, such as 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB" if count < 999.5 else f"{count:,.0f} TiB"
