"""Many runs of one learner, compiled once and moved on from the host in chunks."""

import dataclasses
import time
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax.training.learner import NEVER, Report, advance, empty_report
from rljax.training.parallel import OFTEN, ONCE, ONE_THREAD, Spread
from rljax.types import Array, Key, Learner, PyTree, Shared

MakeLearner = Callable[[Any], Learner]  # config -> learner, called inside the trace
_COMPILED: dict[Hashable, Any] = {}  # so that a second call does not compile again


class Start(NamedTuple):
    """What a run starts from, `[R]`: its key, and the config fields that differ between runs."""

    key: Key
    swept: dict[str, Array]


class Work(NamedTuple):
    """What moves: one entry a run, `[R, ...]`."""

    state: PyTree
    report: Report
    swept: dict[str, Array]


def start_one(make_learner: MakeLearner, config: Any, start: Start) -> Work:
    """One run before its first update."""
    learner = make_learner(dataclasses.replace(config, **start.swept))
    state = learner.init(start.key)
    return Work(state, empty_report(learner, state), start.swept)


def advance_one(
    make_learner: MakeLearner, config: Any, work: Work, num_updates: Array, clear: Array
) -> Work:
    """One run, `num_updates` further; `clear` begins a new report first."""
    learner = make_learner(dataclasses.replace(config, **work.swept))
    empty = empty_report(learner, work.state)
    report = jax.tree.map(lambda new, old: jax.numpy.where(clear, new, old), empty, work.report)
    return Work(*advance(learner, work.state, report, num_updates), work.swept)


def template(make_learner: MakeLearner, config: Any, starts: Start) -> Work:
    """The shapes of the work of all runs, without compiling or computing anything."""
    return jax.eval_shape(jax.vmap(lambda start: start_one(make_learner, config, start)), starts)


def over_runs(function: Callable[..., PyTree], width: int) -> Callable[..., PyTree]:
    """Maps a function over the leading axis of its first argument; the others are shared.

    A `vmap` over one run is none: matrix products without a batch axis are faster. What is
    `types.Shared` goes in without an axis and comes out with one.
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
            return jax.vmap(lambda one: function(one, *shared), in_axes=(axes,))(tree)
        out = function(jax.tree.map(lambda x: x[0], tree), *shared)
        return jax.tree.map(lambda x: x[None], out)

    return mapped


class Runs:
    """`R` runs of the learner that `make_learner(config)` makes, side by side.

    The program is compiled ahead of time, once; the number of updates of a chunk is an argument
    of it. Programs of equal `cache_key` are kept and used again. `one_thread`: each share keeps to
    one core, for programs of small products.
    """

    def __init__(
        self, make_learner: MakeLearner, config: Any, starts: Start, spread: Spread,
        cache_key: Hashable = None, one_thread: bool = False,
    ):  # fmt: skip
        self._spread, self._config, self._clear = spread, config, False
        width = -(-spread.num_runs // spread.num_groups)

        def start(starts, config):
            return over_runs(lambda one: start_one(make_learner, config, one), width)(starts)

        def chunk(work, config, num_updates, clear):
            def one(work, num_updates, clear):
                return advance_one(make_learner, config, work, num_updates, clear)

            return over_runs(one, width)(work, num_updates, clear)

        began = time.perf_counter()
        grouped = spread.split(starts)
        begin, chunk_call = _COMPILED.get(cache_key, (None, None))
        if begin is None:
            begin = spread.compile(start, grouped, config, options=ONCE)
        self._work = begin(grouped, config)
        if chunk_call is None:
            options = OFTEN | ONE_THREAD if one_thread else OFTEN
            counts = np.int32(0), np.bool_(False)
            chunk_call = spread.compile(
                chunk, self._work, config, *counts, donate=(0,), options=options
            )
        if cache_key is not None:
            _COMPILED[cache_key] = begin, chunk_call
        self._chunk = chunk_call
        self.compile_seconds = time.perf_counter() - began

    def advance(self, num_updates: int) -> Report:
        """Moves every run on, and waits. Returns the report so far, `[R]` each, on the host."""
        shared = self._config, np.int32(num_updates), np.bool_(self._clear)
        self._work, self._clear = self._chunk(self._work, *shared), False
        reports = self._spread.part(self._work, lambda work: work.report)
        return jax.device_get(self._spread.join(reports))

    def clear_report(self) -> None:
        """Lets the next `advance` begin a new report."""
        self._clear = True

    def snapshot(self) -> Work:
        """Everything, as `[R, ...]`, to keep or to `put_back`."""
        work = self._spread.join(self._work)
        if not self._clear:
            return work
        totals = jax.tree.map(np.zeros_like, work.report.totals)
        nonfinite = jax.tree.map(lambda x: np.full_like(x, NEVER), work.report.nonfinite)
        return work._replace(report=Report(totals, nonfinite))

    def put_back(self, work: Work) -> None:
        """Continues from a snapshot."""
        self._work, self._clear = self._spread.split(work), False


def first_nonfinite(report: Report) -> tuple[int, int, str] | None:
    """The earliest quantity that was not finite: `(update, run, name)`, or None."""
    found = [
        (int(updates.min()), order, int(updates.argmin()), name)
        for order, (name, updates) in enumerate(report.nonfinite.items())
        if updates.min() < NEVER
    ]
    if not found:
        return None
    update, _, run, name = min(found)
    return update, run, name


def means(report: Report) -> dict[str, np.ndarray]:
    """The means of a report on the host, `[R]` float32; NaN where there was nothing to average."""
    means = {}
    for name, mean in report.totals.items():
        weight = np.where(mean.weight > 0, mean.weight, 1.0)
        # not 0 / 0, whose NaN has another sign than the one that a checkpoint gives back
        means[name] = np.where(mean.weight > 0, mean.total / weight, np.nan).astype(np.float32)
    return means
