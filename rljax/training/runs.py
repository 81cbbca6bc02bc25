"""Many runs of one learner, compiled once and advanced from the host in chunks of updates."""

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.training.learner import NEVER, Report, advance, empty_report
from rljax.training.parallel import (
    FAST_PROGRAM,
    ONE_THREAD,
    QUICK_COMPILE,
    WORKERS,
    Placement,
    Program,
)
from rljax.types import Array, Key, Learner, PyTree, Shared, params_of

MakeLearner = Callable[[Any], Learner]  # config -> learner, called inside the trace

# Compiled programs are kept for later calls, up to this number: a program for the CPU takes
# hundreds of memory maps, of which Linux gives a process 65,530 before XLA aborts it.
MAX_COMPILED = 16
_COMPILED: OrderedDict[Hashable, Any] = OrderedDict()


class RunInit(NamedTuple):
    """The inputs in which the runs of one program differ, `[E]`: one entry per run and worker.

    Attributes:
      key: random key.
      swept: values of the config fields that differ between runs.
      worker: index of the worker; 0 where one worker trains the run.
    """

    key: Key
    swept: dict[str, Array]
    worker: Array


class RunState(NamedTuple):
    """The state of all runs, `[E, ...]`: one entry per run and worker.

    Attributes:
      state: the `TrainState`.
      report: metrics since the last report.
      swept: values of the config fields that differ between runs.
    """

    state: PyTree
    report: Report
    swept: dict[str, Array]


class HostView(NamedTuple):
    """The part of the state that the host reads after each chunk: one entry per run, `[R]`.

    Attributes:
      report: metrics since the last report, summed over the workers of a run.
      diverged: whether the parameters of a run's workers differ, bool.
    """

    report: Report
    diverged: Array


def init_run(make_learner: MakeLearner, config: Any, init: RunInit) -> RunState:
    """Returns the state of one run before its first update."""
    learner = make_learner(dataclasses.replace(config, **init.swept))
    state = learner.init(init.key, init.worker)
    return RunState(state, empty_report(learner, state), init.swept)


def advance_run(
    make_learner: MakeLearner, config: Any, run: RunState, num_updates: Array, clear: Array
) -> RunState:
    """Returns the state of one run after `num_updates` more; `clear` empties its report first."""
    learner = make_learner(dataclasses.replace(config, **run.swept))
    empty = empty_report(learner, run.state)
    report = jax.tree.map(lambda new, old: jnp.where(clear, new, old), empty, run.report)
    return RunState(*advance(learner, run.state, report, num_updates), run.swept)


def host_view(workers: int, run: RunState) -> HostView:
    """Returns the reports of runs summed over their workers, inside the program of a shard."""
    if workers == 1:
        return HostView(run.report, jnp.zeros(run.state.num_updates.shape, bool))
    totals = jax.lax.psum(run.report.totals, WORKERS)
    nonfinite = jax.lax.pmin(run.report.nonfinite, WORKERS)
    diverged = jnp.zeros(run.state.num_updates.shape, bool)
    for leaf in jax.tree.leaves(params_of(run.state.agent)):
        differs = jax.lax.pmax(leaf, WORKERS) != jax.lax.pmin(leaf, WORKERS)
        diverged |= differs.any(axis=tuple(range(1, leaf.ndim)))
    return HostView(Report(totals, nonfinite), diverged)


def template(make_learner: MakeLearner, config: Any, inits: RunInit) -> RunState:
    """Returns the shapes of the state of all runs, without compiling or computing anything."""
    init = jax.vmap(lambda init: init_run(make_learner, config, init), axis_name=WORKERS)
    return jax.eval_shape(init, inits)


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


class Runs:
    """`R` runs of the learner that `make_learner(config)` builds, side by side.

    The program is compiled once, ahead of time; the number of updates of a chunk is an argument
    of it.
    """

    def __init__(
        self, make_learner: MakeLearner, config: Any, inits: RunInit, placement: Placement,
        cache_key: Hashable = None, one_thread: bool = False,
    ):  # fmt: skip
        """Compiles the program and initializes the runs.

        `compile_seconds` is the time that this took, and `num_bytes` the memory that the program
        needs on all devices together, or None if it is unknown.

        Args:
          make_learner: `config -> Learner`.
          config: config of the runs; the fields in `inits.swept` are replaced.
          inits: keys, swept values and workers of the runs, `[E]`.
          placement: the devices or threads that the runs are placed on.
          cache_key: programs of equal keys are compiled once; None compiles anew.
          one_thread: each shard uses one core, which is faster for small matrix products.

        Raises:
          ValueError: the state of the runs needs more memory than the machine has.
        """
        self._placement, self._config, self._clear = placement, config, False
        start = time.perf_counter()
        shards = placement.split(inits)
        init, chunk = _COMPILED.get(cache_key, (None, None))
        if init is None:
            init = _compile_init(make_learner, placement, shards, config)
        self._runs = init(shards, config)
        if chunk is None:
            options = FAST_PROGRAM | ONE_THREAD if one_thread else FAST_PROGRAM
            chunk = _compile_chunk(make_learner, placement, self._runs, config, options)
        if cache_key is not None:
            _COMPILED[cache_key] = init, chunk
            _COMPILED.move_to_end(cache_key)
            if len(_COMPILED) > MAX_COMPILED:
                _COMPILED.popitem(last=False)
        self._chunk = chunk
        self.num_bytes = chunk.num_bytes
        self.compile_seconds = time.perf_counter() - start

    def advance(self, num_updates: int) -> Report:
        """Advances every run by `num_updates` and waits for the result.

        Returns:
          The metrics since the last report, `[R]` each, on the host.

        Raises:
          RuntimeError: the parameters of the workers of a run differ.
        """
        arguments = self._config, np.int32(num_updates), np.bool_(self._clear)
        (self._runs, view), self._clear = self._chunk(self._runs, *arguments), False
        report, diverged = self._placement.read(view)
        # NaN differs from itself; the caller reports the NaN instead
        if diverged.any() and first_nonfinite(report) is None:
            raise RuntimeError(
                f"the workers of run {int(diverged.argmax())} have different parameters: pass "
                "the gradients and statistics in the agent's `update` through `average`."
            )
        return report

    def clear_report(self) -> None:
        """Lets the next `advance` start a new report."""
        self._clear = True

    def snapshot(self) -> RunState:
        """Returns the state of all runs, `[E, ...]`; every process has to call it."""
        runs = self._placement.join(self._runs)
        if not self._clear:
            return runs
        totals = jax.tree.map(np.zeros_like, runs.report.totals)
        nonfinite = jax.tree.map(lambda x: np.full_like(x, NEVER), runs.report.nonfinite)
        return runs._replace(report=Report(totals, nonfinite))

    def restore(self, snapshot: RunState) -> None:
        """Continues from a snapshot."""
        self._runs, self._clear = self._placement.split(snapshot), False


def _compile_init(
    make_learner: MakeLearner, placement: Placement, shards: Any, config: Any
) -> Program:
    def init(inits, config):
        def init_one(init):
            return init_run(make_learner, config, init)

        return over_runs(init_one, placement.width)(inits)

    return placement.compile(init, shards, config, options=QUICK_COMPILE)


def _compile_chunk(
    make_learner: MakeLearner, placement: Placement, runs: Any, config: Any, options: dict[str, Any]
) -> Program:
    def chunk(runs, config, num_updates, clear):
        def advance_one(run, num_updates, clear):
            return advance_run(make_learner, config, run, num_updates, clear)

        runs = over_runs(advance_one, placement.width)(runs, num_updates, clear)
        return runs, host_view(placement.workers, runs)

    arguments = config, np.int32(0), np.bool_(False)
    return placement.compile(chunk, runs, *arguments, donate=(0,), options=options)


def first_nonfinite(report: Report) -> tuple[int, int, str] | None:
    """Returns the earliest metric that was NaN or infinite: `(update, run, name)`, or None."""
    candidates = [
        (int(updates.min()), order, int(updates.argmin()), name)
        for order, (name, updates) in enumerate(report.nonfinite.items())
        if updates.min() < NEVER
    ]
    if not candidates:
        return None
    update, _, run, name = min(candidates)
    return update, run, name


def means(report: Report) -> dict[str, np.ndarray]:
    """Returns the means of a report on the host, `[R]` float32; NaN where the weight is 0."""
    means = {}
    for name, mean in report.totals.items():
        weight = np.where(mean.weight > 0, mean.weight, 1.0)
        # not 0 / 0: the sign of its NaN differs from the NaN that a checkpoint restores
        means[name] = np.where(mean.weight > 0, mean.total / weight, np.nan).astype(np.float32)
    return means
