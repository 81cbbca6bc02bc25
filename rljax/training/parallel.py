"""Independent runs side by side: over devices by `pmap`, over CPU cores by threads.

XLA runs small matrix products on one core, so on a CPU the largest single gain is to give each
core its own share of the runs. Several devices get one `pmap` of the program; a single CPU device
gets one compiled program that a thread a core calls on its share. Results do not depend on it,
beyond the last bits that the width of a `vmap` always decides.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import PyTree

# XLA's CPU compiler. Measured on PPO: level 1 makes programs as fast as level 3 in 0.7 of the time,
# level 0 compiles initialisation in a quarter of it.
ONCE: dict[str, Any] = {"xla_backend_optimization_level": 0}
OFTEN: dict[str, Any] = {"xla_backend_optimization_level": 1}
# Small products are faster on one thread than shared between two, by a quarter on PPO at 4 x 128.
ONE_THREAD: dict[str, Any] = {
    "xla_cpu_multi_thread_eigen": False,
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


class Spread(NamedTuple):
    """How `num_runs` are shared out. Grouped trees are opaque: made by `split` and by `call`.

    split:   `tree[R, ...] -> grouped`, the last share filled up by repeating the first run
    join:    `grouped -> tree[R, ...]`
    part:    `(grouped, function of a share) -> grouped`, to take a part of each share
    compile: `(function of one share, grouped, *shared, donate, options) -> call`, ahead of time;
             `call(grouped, *shared) -> grouped` waits until all shares are done. `options` are
             of XLA's CPU compiler: `ONCE`, `OFTEN`, `OFTEN | ONE_THREAD`
    """

    num_runs: int
    num_groups: int
    split: Callable[[PyTree], PyTree]
    join: Callable[[PyTree], PyTree]
    part: Callable[[PyTree, Callable[[PyTree], PyTree]], PyTree]
    compile: Callable[..., Callable[..., PyTree]]


def num_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(num_runs: int, num_groups: int | None = None) -> Spread:
    """Shares runs out over the local devices, or over the cores of a lone CPU device."""
    devices = jax.local_devices()
    if len(devices) > 1:
        groups = min(num_groups or len(devices), num_runs, len(devices))
        return _over_devices(num_runs, devices[:groups])
    cores = num_cores() if devices[0].platform == "cpu" else 1
    return _over_threads(num_runs, min(num_groups or cores, num_runs))


def _compiled(lowered: Any, options: dict[str, Any]) -> Any:
    if jax.default_backend() != "cpu":
        return lowered.compile()
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "compile option" not in str(error):
            raise
        return lowered.compile()  # another version of XLA has other options


def _padded(num_runs: int, num_groups: int) -> tuple[np.ndarray, int]:
    """Which run stands in each place of the shares, and how many places a share has."""
    width = -(-num_runs // num_groups)
    places = np.arange(num_groups * width)
    return np.where(places < num_runs, places, 0), width


def _over_threads(num_runs: int, num_groups: int) -> Spread:
    places, width = _padded(num_runs, num_groups)
    pool = ThreadPoolExecutor(num_groups) if num_groups > 1 else None

    def split(tree):
        shares = places.reshape(num_groups, width)
        return [jax.tree.map(lambda x, rows=rows: x[rows], tree) for rows in shares]

    def join(grouped):
        return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:num_runs], *grouped)

    def part(grouped, of):
        return [of(share) for share in grouped]

    def compile(function, grouped, *shared, donate=(), options=OFTEN):
        lowered = jax.jit(function, donate_argnums=donate).lower(grouped[0], *shared)
        compiled = _compiled(lowered, options)

        def one(share, *rest):
            return jax.block_until_ready(compiled(share, *rest))

        def call(grouped, *shared):
            if pool is None:
                return [one(grouped[0], *shared)]
            return list(pool.map(lambda share: one(share, *shared), grouped))

        return call

    if num_groups == 1:  # copies, as what is split may be donated and what was joined is kept
        copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        return Spread(
            num_runs,
            1,
            lambda tree: [copied(tree)],
            lambda shares: copied(shares[0]),
            part,
            compile,
        )
    # compiled whole: a program for each array would take longer than the copies
    return Spread(num_runs, num_groups, jax.jit(split), jax.jit(join), part, compile)


def _over_devices(num_runs: int, devices: list[Any]) -> Spread:
    num_groups = len(devices)
    mesh = jax.sharding.Mesh(np.array(devices), ("shares",))
    one_a_device = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("shares"))
    places, width = _padded(num_runs, num_groups)

    def split(tree):
        shares = places.reshape(num_groups, width)
        stacked = jax.tree.map(lambda x: jnp.asarray(x)[shares], tree)
        return jax.device_put(stacked, one_a_device)

    def join(grouped):
        def flat(x):
            return x.reshape(num_groups * width, *x.shape[2:])[:num_runs]

        return jax.tree.map(flat, jax.device_put(grouped, devices[0]))

    def compile(function, grouped, *shared, donate=(), options=OFTEN):
        axes = (0, *(None for _ in shared))
        mapped = jax.pmap(function, devices=devices, in_axes=axes, donate_argnums=donate)
        compiled = _compiled(mapped.lower(grouped, *shared), options)
        return lambda grouped, *shared: jax.block_until_ready(compiled(grouped, *shared))

    return Spread(num_runs, num_groups, split, join, lambda grouped, of: of(grouped), compile)
