"""Runs side by side, and workers of one run: over devices by `pmap`, over CPU cores by threads.

XLA runs small matrix products on one core, so on a CPU the largest single gain is to give each
core its own share of the runs. Several devices get one `pmap` of the program; a single CPU device
gets one compiled program that a thread a core calls on its share. Results do not depend on it,
beyond the last bits that the width of a `vmap` always decides.

Workers are the other way to use devices: every run is on every device, each with its own part of
the environments, and what they learn passes through `average`, a `pmean` over `WORKERS`. They may
belong to several processes, each of which then holds its own devices' part.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import PyTree, is_key

WORKERS = "workers"  # the axis that `average` is a mean over

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
    """How runs are shared out. Grouped trees are opaque: made by `split` and by `call`.

    num_runs:   R; with W workers a run has W entries, one after another: E = R * W, else E = R
    num_groups: shares; a worker is one
    width:      runs in a share
    split:   `tree[E, ...] -> grouped`, the last share filled up by repeating the first run
    join:    `grouped -> tree[E, ...]`; every process has to call it
    read:    `grouped -> tree[R, ...]` on the host; of workers that agree, what the first one says
    compile: `(function of one share, grouped, *shared, donate, options) -> call`, ahead of time;
             `call(grouped, *shared) -> grouped` waits until all shares are done; with two results
             it returns two grouped trees. `options` are of XLA's CPU compiler: `ONCE`, `OFTEN`,
             `OFTEN | ONE_THREAD`
    workers: W, 1 where runs are whole
    """

    num_runs: int
    num_groups: int
    width: int
    split: Callable[[PyTree], PyTree]
    join: Callable[[PyTree], PyTree]
    read: Callable[[PyTree], PyTree]
    compile: Callable[..., Callable[..., Any]]
    workers: int = 1


def num_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(num_runs: int, num_groups: int | None = None, workers: int = 1) -> Spread:
    """Shares runs out over the local devices, or over the cores of a lone CPU device.

    Args:
      num_runs: R.
      num_groups: at most so many shares.
      workers: learn every run on so many devices at once.

    Raises:
      ValueError: there are not so many devices; or more, and they belong to several processes.
    """
    if workers > 1:
        return _over_workers(num_runs, _worker_devices(workers))
    devices = jax.local_devices()
    if len(devices) > 1:
        groups = min(num_groups or len(devices), num_runs, len(devices))
        return _over_devices(num_runs, devices[:groups])
    cores = num_cores() if devices[0].platform == "cpu" else 1
    return _over_threads(num_runs, min(num_groups or cores, num_runs))


def _worker_devices(workers: int) -> list[Any]:
    devices = jax.devices()
    if workers > len(devices):
        cure = "take as many"
        if devices[0].platform == "cpu":
            cure += ', or let the CPU play them: `jax.config.update("jax_num_cpu_devices", N)` '
            cure += "before JAX starts, which `rljax train --devices N` does for you"
        raise ValueError(
            f"`devices` is {workers}, but JAX sees {len(devices)} ({devices[0].platform}): {cure}."
        )
    if jax.process_count() > 1 and workers != len(devices):
        raise ValueError(
            f"`devices` is {workers}, but the {jax.process_count()} processes have {len(devices)}: "
            "a run over several processes takes all their devices."
        )
    return devices[:workers]


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

    def read(grouped):
        return jax.device_get(join_all(grouped))

    def compile(function, grouped, *shared, donate=(), options=OFTEN):
        lowered = jax.jit(function, donate_argnums=donate).lower(grouped[0], *shared)
        compiled = _compiled(lowered, options)

        def one(share, *rest):
            return jax.block_until_ready(compiled(share, *rest))

        several = type(lowered.out_info) is tuple

        def call(grouped, *shared):
            if pool is None:
                shares = [one(grouped[0], *shared)]
            else:
                shares = list(pool.map(lambda share: one(share, *shared), grouped))
            return tuple(map(list, zip(*shares, strict=True))) if several else shares

        return call

    if num_groups == 1:  # copies, as what is split may be donated and what was joined is kept
        copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))

        def join_all(shares):
            return copied(shares[0])

        return Spread(num_runs, 1, width, lambda tree: [copied(tree)], join_all, read, compile)
    # compiled whole: a program for each array would take longer than the copies
    join_all = jax.jit(join)
    return Spread(num_runs, num_groups, width, jax.jit(split), join_all, read, compile)


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

    def read(grouped):
        return jax.device_get(join(grouped))

    return Spread(num_runs, num_groups, width, split, join, read, compile)


class _Raw(NamedTuple):
    """A tree `[W, R, ...]` whose keys are raw numbers: what `pmap` takes and gives everywhere."""

    leaves: list[Any]
    structure: Any
    keys: tuple[Any, ...]  # a leaf: the kind of key that it is, or None


def _raw(tree: PyTree) -> _Raw:
    leaves, structure = jax.tree.flatten(tree)
    keys = tuple(jax.random.key_impl(x) if is_key(x) else None for x in leaves)
    numbers = [
        x if kind is None else jax.random.key_data(x) for x, kind in zip(leaves, keys, strict=True)
    ]
    return _Raw(numbers, structure, keys)


def _typed(raw: _Raw) -> PyTree:
    leaves = [
        x if kind is None else jax.random.wrap_key_data(x, impl=kind)
        for x, kind in zip(raw.leaves, raw.keys, strict=True)
    ]
    return jax.tree.unflatten(raw.structure, leaves)


def _over_workers(num_runs: int, devices: list[Any]) -> Spread:
    """A device a worker. Only host arrays and the shards of this process' devices are touched
    outside `pmap`, so that it is the same for one process and for many."""
    workers = len(devices)
    mesh = jax.sharding.Mesh(np.array(devices), (WORKERS,))
    one_a_device = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(WORKERS))
    mine = [i for i, device in enumerate(devices) if device.process_index == jax.process_index()]

    def split(tree):
        def local(x):
            x = np.asarray(x)
            x = x.reshape(num_runs, workers, *x.shape[1:]).swapaxes(0, 1)
            return jax.make_array_from_process_local_data(one_a_device, x[mine], x.shape)

        raw = _raw(tree)
        return raw._replace(leaves=[local(x) for x in raw.leaves])

    def here(x):
        """The part of this process, `[W here, ...]` on the host."""
        shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in shards])

    def join(raw):
        leaves = [here(x) for x in raw.leaves]
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            leaves = multihost_utils.process_allgather(leaves, tiled=True)
        leaves = [x.swapaxes(0, 1).reshape(num_runs * workers, *x.shape[2:]) for x in leaves]
        return _typed(raw._replace(leaves=leaves))

    def read(raw):
        first = [np.asarray(x.addressable_shards[0].data)[0] for x in raw.leaves]
        return _typed(raw._replace(leaves=first))

    def compile(function, grouped, *shared, donate=(), options=OFTEN):
        several, results = False, []

        def on_raw(leaves, *shared):
            nonlocal several
            out = function(_typed(grouped._replace(leaves=leaves)), *shared)
            several = type(out) is tuple
            raws = [_raw(tree) for tree in (out if several else (out,))]
            results[:] = [raw._replace(leaves=[]) for raw in raws]
            return [raw.leaves for raw in raws]

        axes = (0, *(None for _ in shared))
        chosen = None if jax.process_count() > 1 else devices
        mapped = jax.pmap(
            on_raw, WORKERS, devices=chosen, in_axes=axes, donate_argnums=donate
        )  # fmt: skip
        compiled = _compiled(mapped.lower(grouped.leaves, *shared), options)

        def call(grouped, *shared):
            out = jax.block_until_ready(compiled(grouped.leaves, *shared))
            raws = [raw._replace(leaves=leaves) for raw, leaves in zip(results, out, strict=True)]
            return tuple(raws) if several else raws[0]

        return call

    return Spread(num_runs, workers, num_runs, split, join, read, compile, workers)
