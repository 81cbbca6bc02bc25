"""Many runs of one learner, compiled once and moved on from the host in chunks."""

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax.training.learner import NEVER, Report, advance, empty_report
from rljax.training.parallel import OFTEN, ONCE, ONE_THREAD, WORKERS, Spread
from rljax.types import Array, Key, Learner, PyTree, Shared, params_of

MakeLearner = Callable[[Any], Learner]  # config -> learner, called inside the trace

# So that a second call does not compile again. Not more than this many: a program of the CPU takes
# hundreds of memory maps, of which Linux gives a process 65,530 before XLA aborts it.
MOST_KEPT = 16
_COMPILED: OrderedDict[Hashable, Any] = OrderedDict()


class Start(NamedTuple):
    """What an entry starts from, `[E]`: its key, the config fields that differ, which worker."""

    key: Key
    swept: dict[str, Array]
    worker: Array  # 0 where runs are whole


class Work(NamedTuple):
    """What moves: one entry a run and worker, `[E, ...]`."""

    state: PyTree
    report: Report
    swept: dict[str, Array]


class Seen(NamedTuple):
    """What the host looks at after each chunk, of all workers together: one entry a run, `[R]`."""

    report: Report
    parted: Array  # bool: workers no longer hold the same parameters


def start_one(make_learner: MakeLearner, config: Any, start: Start) -> Work:
    """One run before its first update."""
    learner = make_learner(dataclasses.replace(config, **start.swept))
    state = learner.init(start.key, start.worker)
    return Work(state, empty_report(learner, state), start.swept)


def advance_one(
    make_learner: MakeLearner, config: Any, work: Work, num_updates: Array, clear: Array
) -> Work:
    """One run, `num_updates` further; `clear` begins a new report first."""
    learner = make_learner(dataclasses.replace(config, **work.swept))
    empty = empty_report(learner, work.state)
    report = jax.tree.map(lambda new, old: jax.numpy.where(clear, new, old), empty, work.report)
    return Work(*advance(learner, work.state, report, num_updates), work.swept)


def seen_by(workers: int, work: Work) -> Seen:
    """What the workers of a run have to tell, inside the program of a share."""
    if workers == 1:
        return Seen(work.report, jax.numpy.zeros(work.state.num_updates.shape, bool))
    totals = jax.lax.psum(work.report.totals, WORKERS)
    nonfinite = jax.lax.pmin(work.report.nonfinite, WORKERS)
    parted = jax.numpy.zeros(work.state.num_updates.shape, bool)
    for leaf in jax.tree.leaves(params_of(work.state.agent)):
        differs = jax.lax.pmax(leaf, WORKERS) != jax.lax.pmin(leaf, WORKERS)
        parted |= differs.any(axis=tuple(range(1, leaf.ndim)))
    return Seen(Report(totals, nonfinite), parted)


def template(make_learner: MakeLearner, config: Any, starts: Start) -> Work:
    """The shapes of the work of all runs, without compiling or computing anything."""
    begin = jax.vmap(lambda start: start_one(make_learner, config, start), axis_name=WORKERS)
    return jax.eval_shape(begin, starts)


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
        width = spread.width

        def start(starts, config):
            return over_runs(lambda one: start_one(make_learner, config, one), width)(starts)

        def chunk(work, config, num_updates, clear):
            def one(work, num_updates, clear):
                return advance_one(make_learner, config, work, num_updates, clear)

            work = over_runs(one, width)(work, num_updates, clear)
            return work, seen_by(spread.workers, work)

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
            _COMPILED.move_to_end(cache_key)
            if len(_COMPILED) > MOST_KEPT:
                _COMPILED.popitem(last=False)
        self._chunk = chunk_call
        self.compile_seconds = time.perf_counter() - began

    def advance(self, num_updates: int) -> Report:
        """Moves every run on, and waits. Returns the report so far, `[R]` each, on the host.

        Raises:
          RuntimeError: the workers of a run have parted.
        """
        shared = self._config, np.int32(num_updates), np.bool_(self._clear)
        (self._work, seen), self._clear = self._chunk(self._work, *shared), False
        report, parted = self._spread.read(seen)
        # what is NaN equals nothing: whoever reads the report will say that
        if parted.any() and first_nonfinite(report) is None:
            raise RuntimeError(
                f"the workers of run {int(parted.argmax())} no longer hold the same parameters: "
                "whatever an agent's `update` learns from must pass through `average`."
            )
        return report

    def clear_report(self) -> None:
        """Lets the next `advance` begin a new report."""
        self._clear = True

    def snapshot(self) -> Work:
        """Everything, as `[E, ...]`, to keep or to `put_back`; every process has to call it."""
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
