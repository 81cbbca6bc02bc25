"""Many runs of one learner, compiled once and advanced from the host in chunks of updates."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config.run import with_values
from rljax.training.batching import choose, over_runs
from rljax.training.learner import NEVER, Report, advance, empty_report
from rljax.training.parallel import WORKERS, Placement
from rljax.training.programs import FAST_PROGRAM, ONE_THREAD, QUICK_COMPILE, Program
from rljax.types import Array, Key, Learner, PyTree, params_of

MakeLearner = Callable[[Any], Learner]  # config -> learner, called inside the trace
SweptLearner = Callable[[Any, dict[str, Array]], Learner]  # config, swept fields -> learner

# Compiled programs are kept for later calls, up to this number: a program for the CPU takes
# hundreds of memory maps, of which Linux gives a process 65,530 before XLA aborts it.
MAX_COMPILED = 48
_COMPILED: OrderedDict[Hashable, Program] = OrderedDict()


class RunInit(NamedTuple):
    """The inputs in which the runs of one program differ, `[E]`: one entry per run and worker.

    Attributes:
      key: random key.
      swept: values of the config fields that differ between runs.
      worker: index of the worker; 0 where one worker trains the run.
    """

    key: Key
    swept: dict[str, Any]
    worker: Any


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
      differ: whether the parameters of a run's workers differ, bool.
      all_ended: whether every environment has completed an episode, bool.
    """

    report: Report
    differ: Array
    all_ended: Array


def traced_once(make_learner: MakeLearner) -> SweptLearner:
    """Returns learners whose `step` is traced once, although several programs contain it.

    The fields that a trace replaces are arguments of the step: JAX would trace a function that
    refers to them from outside once more in every program.
    """

    @partial(jax.jit, inline=True)
    def step(config, swept, state):
        return make_learner(with_values(config, swept)).step(state)

    def learner_of(config, swept):
        learner = make_learner(with_values(config, swept))
        return Learner(learner.init, partial(step, config, swept))

    return learner_of


def init_run(learner_of: SweptLearner, config: Any, init: RunInit) -> RunState:
    """Returns the state of one run before its first update."""
    learner = learner_of(config, init.swept)
    state = learner.init(init.key, init.worker)
    return RunState(state, empty_report(learner, state), init.swept)


def advance_run(
    learner_of: SweptLearner, config: Any, run: RunState, num_updates: Array, clear: Array
) -> RunState:
    """Returns the state of one run after `num_updates` more.

    `clear` empties the totals of its report first. The first update of each metric that was NaN or
    infinite is kept for the whole run.
    """
    learner = learner_of(config, run.swept)
    totals = jax.tree.map(lambda x: jnp.where(clear, jnp.zeros_like(x), x), run.report.totals)
    report = run.report._replace(totals=totals)
    return RunState(*advance(learner, run.state, report, num_updates), run.swept)


def host_view(workers: int, num_steps: int, run: RunState) -> HostView:
    """Returns what the host reads of runs, inside the program of a shard.

    Args:
      workers: number of workers of each run.
      num_steps: length of a rollout; an environment whose episode is as long as the run so far has
        not completed one.
      run: state of the runs.
    """
    state = run.state
    length = state.episodes[1]
    all_ended = (length < num_steps * state.num_updates[..., None]).all(axis=-1)
    if workers == 1:
        return HostView(run.report, jnp.zeros(state.num_updates.shape, bool), all_ended)
    totals = jax.lax.psum(run.report.totals, WORKERS)
    nonfinite = jax.lax.pmin(run.report.nonfinite, WORKERS)
    differ = jnp.zeros(state.num_updates.shape, bool)
    for leaf in jax.tree.leaves(params_of(state.agent)):
        high, low = jax.lax.pmax(leaf, WORKERS), jax.lax.pmin(leaf, WORKERS)
        differs = (high != low) & ~jnp.isnan(high)  # NaN differs from itself
        differ |= differs.any(axis=tuple(range(1, leaf.ndim)))
    all_ended = jax.lax.pmin(all_ended.astype(jnp.int32), WORKERS) > 0
    return HostView(Report(totals, nonfinite), differ, all_ended)


def template(make_learner: MakeLearner, config: Any, inits: RunInit) -> RunState:
    """Returns the shapes of the state of all runs, without compiling or computing anything."""
    learner_of = traced_once(make_learner)
    init = jax.vmap(lambda init: init_run(learner_of, config, init), axis_name=WORKERS)
    return jax.eval_shape(init, inits)


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
          config: config of the runs, or a `ProgramConfig`, with which equal programs serve runs of
            any length; the fields in `inits.swept` are replaced.
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
        options = FAST_PROGRAM | ONE_THREAD if one_thread else FAST_PROGRAM
        learner_of = traced_once(make_learner)
        init = cached_program(
            cache_key and ("init", cache_key),
            lambda: _compile_init(learner_of, placement, shards, config),
        )
        self._runs = init(shards, config)
        self._chunk = cached_program(
            cache_key and ("chunk", cache_key),
            lambda: _compile_chunk(learner_of, placement, self._runs, config, options),
        )
        self._part: Program | None = None
        self._held: tuple[np.ndarray, RunState] | None = None
        self.num_bytes = self._chunk.num_bytes
        self.compile_seconds = time.perf_counter() - start

    def advance(self, num_updates: int) -> HostView:
        """Advances every run by `num_updates` and waits for the result.

        Returns:
          What the host reads of the runs, `[R]` each; the metrics are those since the last report.

        Raises:
          RuntimeError: the parameters of the workers of a run differ.
        """
        arguments = self._config, np.int32(num_updates), np.bool_(self._clear)
        (self._runs, view), self._clear = self._chunk(self._runs, *arguments), False
        view = self._placement.read(view)
        if view.differ.any():
            raise RuntimeError(
                f"the workers of run {int(view.differ.argmax())} have different parameters: pass "
                "the gradients and statistics in the agent's `update` through `average`."
            )
        return view

    def clear_report(self) -> None:
        """Lets the next `advance` start a new report."""
        self._clear = True

    def part(self, take: Callable[[PyTree], PyTree]) -> PyTree:
        """Returns a part of the agent states, `[E, ...]`; every process has to call it.

        Args:
          take: `(agent state of one run) -> tree`, the same function in all calls.
        """
        if self._part is None:
            program = over_runs(lambda run: take(run.state.agent), self._placement.width)
            self._part = self._placement.compile(program, self._runs, options=QUICK_COMPILE)
        return self._placement.join(self._part(self._runs))

    def snapshot(self) -> RunState:
        """Returns the state of all runs, `[E, ...]`; every process has to call it."""
        runs = self._placement.join(self._runs)
        if self._clear:
            totals = jax.tree.map(np.zeros_like, runs.report.totals)
            runs = runs._replace(report=runs.report._replace(totals=totals))
        return runs if self._held is None else choose(*self._held, runs)

    def hold(self, is_held: np.ndarray) -> None:
        """Lets later snapshots show some runs as they are now; every process has to call it.

        The runs are advanced further with the others, but nothing shows it. They need the memory
        of a second state of all runs.

        Args:
          is_held: `[E]` bool; runs that are held already remain so.
        """
        held = self._held[0] if self._held else np.zeros_like(is_held)
        self._held = held | is_held, self.snapshot()

    def restore(self, snapshot: RunState) -> None:
        """Continues from a snapshot."""
        self._runs, self._clear = self._placement.split(snapshot), False


def cached_program(key: Hashable, compile: Callable[[], Program]) -> Program:
    """Returns the compiled program of a key: that of an earlier call, or a new one.

    Args:
      key: equal for calls with the same program; None compiles anew.
      compile: compiles the program.
    """
    if key is None:
        return compile()
    if key not in _COMPILED:
        _COMPILED[key] = compile()
    _COMPILED.move_to_end(key)
    if len(_COMPILED) > MAX_COMPILED:
        _COMPILED.popitem(last=False)
    return _COMPILED[key]


def _compile_init(
    learner_of: SweptLearner, placement: Placement, shards: Any, config: Any
) -> Program:
    def init(inits, config):
        def init_one(init):
            return init_run(learner_of, config, init)

        return over_runs(init_one, placement.width)(inits)

    return placement.compile(init, shards, config, options=QUICK_COMPILE)


def _compile_chunk(
    learner_of: SweptLearner, placement: Placement, runs: Any, config: Any, options: dict[str, Any]
) -> Program:
    def chunk(runs, config, num_updates, clear):
        def advance_one(run, num_updates, clear):
            return advance_run(learner_of, config, run, num_updates, clear)

        runs = over_runs(advance_one, placement.width)(runs, num_updates, clear)
        return runs, host_view(placement.workers, with_values(config, {}).num_steps, runs)

    arguments = config, np.int32(0), np.bool_(False)
    return placement.compile(chunk, runs, *arguments, donate=(0,), options=options)


def first_nonfinite(report: Report) -> dict[int, tuple[int, str]]:
    """Returns the first NaN or infinite metric of each run that has one: `{run: (update, name)}`.

    Of metrics in the same update it is the first in the order of the report.
    """
    first: dict[int, tuple[int, str]] = {}
    for name, updates in report.nonfinite.items():
        for run in np.flatnonzero(updates < NEVER):
            if int(run) not in first or updates[run] < first[int(run)][0]:
                first[int(run)] = int(updates[run]), name
    return first


def means(report: Report) -> dict[str, np.ndarray]:
    """Returns the means of a report on the host, `[R]` float32; NaN where the weight is 0."""
    means = {}
    for name, mean in report.totals.items():
        weight = np.where(mean.weight > 0, mean.weight, 1.0)
        # not 0 / 0: the sign of its NaN differs from the NaN that a checkpoint restores
        means[name] = np.where(mean.weight > 0, mean.total / weight, np.nan).astype(np.float32)
    return means
