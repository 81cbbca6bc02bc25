"""The programs of rljax compute with 32-bit numbers, whatever `jax_enable_x64` is."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])


def in_32_bits(function: F) -> F:
    """Returns the function with 64-bit types disabled while it runs, or while it is traced.

    Agents and environments create arrays of the default types. With JAX_ENABLE_X64=1 those would be
    float64 and int64 beside the float32 of networks and the int32 of counters, and the results
    would differ from those without it. Only the 64-bit types of JAX are disabled, not of NumPy.

    Example:
      >>> import jax.numpy as jnp
      >>> with jax.enable_x64(True):
      ...     jnp.zeros(1).dtype, in_32_bits(jnp.zeros)(1).dtype
      (dtype('float64'), dtype('float32'))
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return wrapped  # type: ignore[return-value]
