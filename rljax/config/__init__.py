"""Configs of agents and runs: fields with help texts and ranges, checked values, TOML files.

Importing this package imports no JAX, so that the command line answers at once. `RunConfig` is a
pytree and needs JAX, so it is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

from rljax.config.fields import (
    check,
    check_swept,
    config,
    field_types,
    from_mapping,
    is_tracer,
    option,
    to_mapping,
)
from rljax.config.toml import dump, load
from rljax.config.values import (
    ALIASES,
    at_least,
    check_range,
    convert,
    kind_of,
    nearest,
    shown,
    suggestion,
    unknown_key,
)

if TYPE_CHECKING:
    from rljax.config.run import RunConfig

__all__ = [
    "ALIASES", "RunConfig", "at_least", "check", "check_range", "check_swept", "config", "convert",
    "dump", "field_types", "from_mapping", "is_tracer", "kind_of", "load", "nearest", "option",
    "shown", "suggestion", "to_mapping", "unknown_key",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name != "RunConfig":
        raise AttributeError(f"module 'rljax.config' has no attribute {name!r}")
    from rljax.config.run import RunConfig

    return RunConfig
