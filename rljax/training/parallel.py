"""Placement of runs on devices by `pmap`, or on the cores of one CPU device by threads.

XLA runs small matrix products on one core, so each core of a CPU gets its own shard of the runs.
Only the width of a shard's `vmap` changes results, in the last bits. With workers, each run is on
every device, has a part of its environments there, and averages gradients over `WORKERS`; the
devices may belong to several processes.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.ops.platform import num_cores
from rljax.ops.precision import in_32_bits
from rljax.training.programs import FAST_PROGRAM, Program, compile_lowered
from rljax.types import PyTree, is_key

WORKERS = "workers"  # the mapped axis that `average` is a mean over


class Placement(NamedTuple):
    """How runs are placed on devices or threads.

    Sharded trees are opaque to the caller: they are made by `split` and by compiled functions.
    With W workers a run has W entries, one after another, so E = R * W; else E = R.

    Attributes:
      num_runs: R.
      num_shards: number of groups of runs, one for each device or one or more for each core; each
        worker is one shard.
      width: number of runs in a shard.
      split: `tree[E, ...] -> shards`; the last shard is filled by repeating the first run.
      join: `shards -> tree[E, ...]`; every process has to call it.
      read: `shards -> tree[R, ...]` on the host, taken from the first worker of each run.
      compile: `(function of one shard, shards, *shared, donate, options) -> Program`, ahead of
        time. A function with two results returns two sharded trees. `options` are those of XLA's
        CPU compiler: `QUICK_COMPILE`, `FAST_PROGRAM`, or `FAST_PROGRAM | ONE_THREAD`. A
        `ValueError` is raised if the results need more memory than the machine has.
      workers: number of workers of each run, W.
    """

    num_runs: int
    num_shards: int
    width: int
    split: Callable[[PyTree], PyTree]
    join: Callable[[PyTree], PyTree]
    read: Callable[[PyTree], PyTree]
    compile: Callable[..., Program]
    workers: int = 1


def place(
    num_runs: int, max_shards: int | None = None, workers: int = 1, max_width: int | None = None
) -> Placement:
    """Places runs on the local devices, or on the cores of a single CPU device.

    Args:
      num_runs: number of runs, R.
      max_shards: upper limit of the number of shards; None sets no limit.
      workers: number of devices that train each run together.
      max_width: most runs of a shard on a core, which trains its shards one after the other; None
        places all runs of a core in one shard. It has no effect on other devices, or with
        `max_shards`.

    Raises:
      ValueError: there are fewer devices than workers, or several processes have more.
    """
    if workers > 1:
        return _on_workers(num_runs, _worker_devices(workers))
    devices = jax.local_devices()
    if len(devices) > 1:
        num_shards = min(max_shards or len(devices), num_runs, len(devices))
        return _on_devices(num_runs, devices[:num_shards])
    is_cpu = devices[0].platform == "cpu"
    num_shards = max_shards or (num_cores() if is_cpu else 1)
    if is_cpu and max_width and not max_shards:
        num_shards *= -(-num_runs // (num_shards * max_width))  # the same number for each core
    return _on_threads(num_runs, min(num_shards, num_runs))


def _worker_devices(workers: int) -> list[Any]:
    devices = jax.devices()
    if workers > len(devices):
        cure = f"set it to {len(devices)} or less"
        if devices[0].platform == "cpu":
            cure += ", or simulate devices on the CPU with `rljax train --devices N` or with "
            cure += '`jax.config.update("jax_num_cpu_devices", N)` before JAX starts'
        raise ValueError(
            f"`devices` is {workers}, but JAX has {len(devices)} ({devices[0].platform}): {cure}."
        )
    if jax.process_count() > 1 and workers != len(devices):
        raise ValueError(
            f"`devices` is {workers}, but the {jax.process_count()} processes have {len(devices)} "
            f"devices: a run on several processes uses all of them, so set it to {len(devices)}."
        )
    return devices[:workers]


def _rows_of_shards(num_runs: int, num_shards: int) -> np.ndarray:
    """Returns the index of the run in each place of each shard, `[num_shards, width]`."""
    width = -(-num_runs // num_shards)
    places = np.arange(num_shards * width)
    return np.where(places < num_runs, places, 0).reshape(num_shards, width)


@lru_cache(maxsize=16)  # a new placement would compile `split`, `join` and `read` again
def _on_threads(num_runs: int, num_shards: int) -> Placement:
    """One compiled program, called for each shard by one thread for each core."""
    rows_of_shards = _rows_of_shards(num_runs, num_shards)
    width = rows_of_shards.shape[1]
    pool = ThreadPoolExecutor(min(num_shards, num_cores())) if num_shards > 1 else None

    def split(tree):
        return [jax.tree.map(lambda x, rows=rows: x[rows], tree) for rows in rows_of_shards]

    def join(shards):
        return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:num_runs], *shards)

    def read(shards):
        return jax.device_get(join_all(shards))

    def compile(function, shards, *shared, donate=(), options=FAST_PROGRAM):
        lowered = jax.jit(function, donate_argnums=donate).lower(shards[0], *shared)
        compiled, num_bytes = compile_lowered(lowered, options, num_shards)

        @in_32_bits  # the setting of the calling thread is not that of the pool's threads
        def call_one(shard, *shared):
            return jax.block_until_ready(compiled(shard, *shared))

        has_two_results = type(lowered.out_info) is tuple

        def call(shards, *shared):
            if pool is None:
                results = [call_one(shards[0], *shared)]
            else:
                results = list(pool.map(lambda shard: call_one(shard, *shared), shards))
            return tuple(map(list, zip(*results, strict=True))) if has_two_results else results

        return Program(call, num_bytes)

    if num_shards == 1:  # copies, because the compiled program donates the buffers of its shards
        copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))

        def join_all(shards):
            return copied(shards[0])

        def split_one(tree):
            return [copied(tree)]

        def read_one(shards):
            return jax.device_get(shards[0])

        return Placement(num_runs, 1, width, split_one, join_all, read_one, compile)
    # one program for the whole tree: a program for each array would take longer than the copies
    join_all = jax.jit(join)
    return Placement(num_runs, num_shards, width, jax.jit(split), join_all, read, compile)


def _on_devices(num_runs: int, devices: list[Any]) -> Placement:
    """One `pmap` over the devices, a shard on each."""
    num_shards = len(devices)
    mesh = jax.sharding.Mesh(np.array(devices), ("shards",))
    one_per_device = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("shards"))
    rows_of_shards = _rows_of_shards(num_runs, num_shards)
    width = rows_of_shards.shape[1]

    def split(tree):
        stacked = jax.tree.map(lambda x: jnp.asarray(x)[rows_of_shards], tree)
        return jax.device_put(stacked, one_per_device)

    def join(shards):
        def flatten(x):
            return x.reshape(num_shards * width, *x.shape[2:])[:num_runs]

        return jax.tree.map(flatten, jax.device_put(shards, devices[0]))

    def compile(function, shards, *shared, donate=(), options=FAST_PROGRAM):
        axes = (0, *(None for _ in shared))
        mapped = jax.pmap(function, devices=devices, in_axes=axes, donate_argnums=donate)
        compiled, num_bytes = compile_lowered(mapped.lower(shards, *shared), options, num_shards)

        def call(shards, *shared):
            return jax.block_until_ready(compiled(shards, *shared))

        return Program(call, num_bytes)

    def read(shards):
        return jax.device_get(join(shards))

    return Placement(num_runs, num_shards, width, split, join, read, compile)


class _RawTree(NamedTuple):
    """A tree `[W, R, ...]` with its random keys as plain numbers, as host arrays need them.

    Attributes:
      leaves: arrays of plain numbers.
      structure: structure of the tree.
      key_impls: for each leaf the implementation of its keys, or None where it is no key.
    """

    leaves: list[Any]
    structure: Any
    key_impls: tuple[Any, ...]


def _to_raw(tree: PyTree) -> _RawTree:
    leaves, structure = jax.tree.flatten(tree)
    impls = tuple(jax.random.key_impl(x) if is_key(x) else None for x in leaves)
    data = [
        x if impl is None else jax.random.key_data(x) for x, impl in zip(leaves, impls, strict=True)
    ]
    return _RawTree(data, structure, impls)


def _from_raw(raw: _RawTree) -> PyTree:
    leaves = [
        x if impl is None else jax.random.wrap_key_data(x, impl=impl)
        for x, impl in zip(raw.leaves, raw.key_impls, strict=True)
    ]
    return jax.tree.unflatten(raw.structure, leaves)


def _on_workers(num_runs: int, devices: list[Any]) -> Placement:
    """One `pmap` over the devices, a worker of every run on each.

    Outside `pmap` it uses only host arrays and the shards on this process' own devices, so the
    same code serves one process and several.
    """
    workers = len(devices)
    mesh = jax.sharding.Mesh(np.array(devices), (WORKERS,))
    one_per_device = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(WORKERS))
    local = [i for i, device in enumerate(devices) if device.process_index == jax.process_index()]

    def split(tree):
        def place_leaf(x):
            x = np.asarray(x)
            x = x.reshape(num_runs, workers, *x.shape[1:]).swapaxes(0, 1)
            return jax.make_array_from_process_local_data(one_per_device, x[local], x.shape)

        raw = _to_raw(tree)
        return raw._replace(leaves=[place_leaf(x) for x in raw.leaves])

    def local_part(x):
        """Returns the entries of this process' workers on the host, `[W of this process, ...]`."""
        shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in shards])

    def join(raw):
        leaves = [local_part(x) for x in raw.leaves]
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            leaves = multihost_utils.process_allgather(leaves, tiled=True)
        leaves = [x.swapaxes(0, 1).reshape(num_runs * workers, *x.shape[2:]) for x in leaves]
        return _from_raw(raw._replace(leaves=leaves))

    def read(raw):
        first = [np.asarray(x.addressable_shards[0].data)[0] for x in raw.leaves]
        return _from_raw(raw._replace(leaves=first))

    compile = partial(_compile_workers, devices)
    return Placement(num_runs, workers, num_runs, split, join, read, compile, workers)


def _compile_workers(
    devices: list[Any], function: Callable[..., Any], shards: _RawTree, *shared: Any,
    donate: tuple[int, ...] = (), options: dict[str, Any] = FAST_PROGRAM,
) -> Program:  # fmt: skip
    """`Placement.compile` on workers: `function` sees typed keys, `pmap` plain numbers."""
    has_two_results, results = False, []  # known when `on_raw` is traced

    def on_raw(leaves, *shared):
        nonlocal has_two_results
        out = function(_from_raw(shards._replace(leaves=leaves)), *shared)
        has_two_results = type(out) is tuple
        raws = [_to_raw(tree) for tree in (out if has_two_results else (out,))]
        results[:] = [raw._replace(leaves=[]) for raw in raws]
        return [raw.leaves for raw in raws]

    axes = (0, *(None for _ in shared))
    used = None if jax.process_count() > 1 else devices
    mapped = jax.pmap(on_raw, WORKERS, devices=used, in_axes=axes, donate_argnums=donate)
    lowered = mapped.lower(shards.leaves, *shared)
    compiled, num_bytes = compile_lowered(lowered, options, len(devices))

    def call(shards, *shared):
        out = jax.block_until_ready(compiled(shards.leaves, *shared))
        raws = [raw._replace(leaves=leaves) for raw, leaves in zip(results, out, strict=True)]
        return tuple(raws) if has_two_results else raws[0]

    return Program(call, num_bytes)
