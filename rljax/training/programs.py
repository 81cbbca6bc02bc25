"""Compiled programs: the options of XLA's compiler, and the memory that a program needs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from rljax.ops.memory import device_bytes, program_bytes, readable, tree_bytes
from rljax.types import PyTree

# Options of XLA's CPU compiler. Measured on PPO: level 1 makes programs as fast as level 3 in 0.7
# of the compile time; level 0 compiles the initialization in a quarter of the time of level 1.
QUICK_COMPILE: dict[str, Any] = {"xla_backend_optimization_level": 0}  # for programs that run once
FAST_PROGRAM: dict[str, Any] = {"xla_backend_optimization_level": 1}
# Small products are faster on one thread than shared between two, by a quarter on PPO at 4 x 128.
ONE_THREAD: dict[str, Any] = {
    "xla_cpu_multi_thread_eigen": False,
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


class Program(NamedTuple):
    """A compiled function of shards.

    Attributes:
      call: `(shards, *shared) -> shards`; waits for all shards.
      num_bytes: memory that all shards together need while it runs, or None if it is unknown.
    """

    call: Callable[..., Any]
    num_bytes: int | None

    def __call__(self, shards: PyTree, *shared: Any) -> Any:
        """Calls the program."""
        return self.call(shards, *shared)


def compile_lowered(
    lowered: Any, options: dict[str, Any], num_shards: int
) -> tuple[Any, int | None]:
    """Compiles for one shard, and returns the memory of all shards in bytes, or None."""
    _check_memory("state", tree_bytes(lowered.out_info), num_shards)
    compiled = _with_options(lowered, options)
    num_bytes = program_bytes(compiled)
    if num_bytes is None:
        return compiled, None
    _check_memory("program", num_bytes, num_shards)
    return compiled, num_shards * num_bytes


def _check_memory(what: str, bytes_per_shard: int, num_shards: int) -> None:
    """Raises a `ValueError` if the shards of a device do not fit in its memory together."""
    limit = device_bytes()
    shards_per_device = num_shards if jax.default_backend() == "cpu" else 1
    needed = shards_per_device * bytes_per_shard
    if limit is not None and needed > limit:
        raise ValueError(
            f"the {what} of the runs needs {readable(needed)} of memory, but this machine has "
            f"{readable(limit)}: lower `num_seeds`, `num_envs`, `num_steps`, or the size of the "
            "replay buffer."
        )


def _with_options(lowered: Any, options: dict[str, Any]) -> Any:
    if jax.default_backend() != "cpu":
        return lowered.compile()
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "compile option" not in str(error):
            raise
        return lowered.compile()  # another version of XLA does not know the options
