"""The host's side of training: between chunks of updates it reports, saves and handles signals."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax.experiment import divergence
from rljax.experiment.directory import RunDirectory, storing
from rljax.experiment.divergence import Divergence
from rljax.experiment.json_lines import JsonLines
from rljax.experiment.plan import Plan
from rljax.experiment.progress import Progress
from rljax.experiment.report import OnReport, RunReport, add_own_metrics, own_metrics
from rljax.experiment.saved import Saved, SavedTree
from rljax.experiment.selection import EVAL_LENGTH, EVAL_RETURN, Selection
from rljax.experiment.signals import Interrupt
from rljax.experiment.writers import Writer
from rljax.training import distributed
from rljax.training import runs as training_runs

EPISODE_METRICS = ("charts/episodic_return", "charts/episodic_length")
STEPS_PER_SECOND = "time/steps_per_second"
SECONDS_PER_CHUNK = 0.5  # time between two checks of the clock and of signals


@dataclasses.dataclass
class TrainingLoop:
    """Advances all runs of a plan to their end, in chunks of updates.

    Attributes:
      plan: the experiment.
      runs: its compiled runs.
      run_dir: the run directory, or None.
      directory: the opened run directory; None in processes that write no files.
      writers: writers of metrics.
      bar: progress bar.
      interrupt: the last signal.
      save_seconds: minimum seconds between two checkpoints.
      rows: rows of metrics so far.
      num_updates: updates done by each run.
      stopped: environment steps at which each run stopped early, `[R]`; NaN where it did not.
      selection: evaluates during training and keeps the best policies; None without evaluations.
      on_report: the user's function, called at each report.
      chunk_size: largest number of updates in the next chunk, adapted to the speed.
      started: time of the start.
      last_save: time of the last checkpoint.
      seconds_of_report: time of the updates since the last report.
      stop_requested: `on_report` returned True.
      diverged: the runs with a NaN or infinite value, by index. The other runs continue.
    """

    plan: Plan
    runs: training_runs.Runs
    run_dir: Path | None
    directory: RunDirectory | None
    writers: list[Writer]
    bar: Progress
    interrupt: Interrupt
    save_seconds: float
    rows: list[tuple[int, dict[str, Any]]]
    num_updates: int
    stopped: np.ndarray
    selection: Selection | None = None
    on_report: OnReport | None = None
    chunk_size: float = 1.0
    started: float = dataclasses.field(default_factory=time.perf_counter)
    last_save: float = dataclasses.field(default_factory=time.perf_counter)
    seconds_of_report: float = 0.0
    stop_requested: bool = False
    diverged: dict[int, Divergence] = dataclasses.field(default_factory=dict)

    def run(self) -> None:
        """Runs the remaining updates.

        Raises:
          FloatingPointError: every run has a NaN or infinite metric or parameter.
          KeyboardInterrupt, SystemExit: a signal was received; the state is saved.
        """
        report_ends = report_updates(self.plan)
        if self.run_dir and not self.num_updates:
            self._save(self.snapshot())  # so that a finite checkpoint always exists
        while not self._is_done:
            size, ends_report = next_chunk(report_ends, self.num_updates, self.chunk_size)
            view = self._advance(size)
            means = self._report(view) if ends_report else None
            self.bar.update(self._step, means)
            is_due, signal = self._agree_to_save()
            if is_due and self.run_dir:
                self._save(self.snapshot())
            if signal:
                self.interrupt.signal = signal
                self.interrupt.exit()

    def snapshot(self) -> training_runs.RunState:
        """Returns the state of all runs; every process has to call it.

        Raises:
          FloatingPointError: every run has a NaN or infinite metric or parameter.
        """
        snapshot = self.runs.snapshot()
        runs = self.plan.first_workers(snapshot)
        self._add(divergence.in_report(jax.device_get(runs.report)))
        self._add(divergence.in_params(self.plan, runs.state.agent, self.num_updates))
        return snapshot

    def all_rows(self) -> list[tuple[int, dict[str, Any]]]:
        """Returns the rows up to the planned end: after an early stop with the last values."""
        ends = report_updates(self.plan) * self.plan.steps_per_update
        last = self.rows[-1][1] if self.rows else {}
        return [*self.rows, *((int(end), last) for end in ends if self.rows and end > self._step)]

    @property
    def _step(self) -> int:
        """Environment steps taken by each run."""
        return self.num_updates * self.plan.steps_per_update

    @property
    def _is_done(self) -> bool:
        is_complete = self.num_updates >= self.plan.config.num_updates
        return is_complete or len(self._ended) == self.plan.num_runs

    @property
    def _ended(self) -> set[int]:
        """Indices of the runs that have stopped or diverged."""
        return {*np.flatnonzero(~np.isnan(self.stopped)).tolist(), *self.diverged}

    def _advance(self, size: int) -> training_runs.HostView:
        """Runs one chunk and adapts the size of the next one to the time it took."""
        start = time.perf_counter()
        distributed.count_progress()
        view = self.runs.advance(size)
        seconds = max(time.perf_counter() - start, 1e-6)
        self.chunk_size = min(size * SECONDS_PER_CHUNK / seconds, 2 * max(self.chunk_size, size))
        self.num_updates += size
        self.seconds_of_report += seconds
        self._add(divergence.in_report(view.report))
        return view

    def _add(self, found: Mapping[int, Divergence]) -> None:
        """Adds diverged runs; raises a `FloatingPointError` if no run is left.

        A run that has stopped early is advanced further without being shown: it cannot diverge.
        """
        found = {run: first for run, first in found.items() if np.isnan(self.stopped[run])}
        self.diverged = {**found, **self.diverged}
        path = self.directory.path if self.directory else None
        divergence.check(self.plan, self.diverged, path)

    def _report(self, view: training_runs.HostView) -> dict[str, np.ndarray]:
        """Adds a row of metrics, writes it, and starts the next report."""
        means = training_runs.means(view.report)
        previous_step, previous = self.rows[-1] if self.rows else (0, None)
        is_last = self.num_updates >= self.plan.config.num_updates
        with_latest_episodes(means, previous, np.asarray(view.all_ended) | is_last)
        self.runs.clear_report()
        means |= self._evaluate(previous_step)
        for name, values in means.items():
            values[list(self.diverged)] = np.nan
            if previous is not None:  # the curves of a run that stopped early hold their last value
                has_stopped = self.stopped < self._step
                values[has_stopped] = previous[name][has_stopped]
        self.rows.append((self._step, means))
        speed = np.full(self.plan.num_runs, self._steps_per_second(previous_step), np.float32)
        live = means | {STEPS_PER_SECOND: speed}
        if self.on_report is not None:
            live |= self._call(self.on_report, live)
        with storing(self.run_dir):
            for writer in self.writers:  # the file of a run depends only on the run
                writer.write(self._step, means if isinstance(writer, JsonLines) else live)
        return means

    def _steps_per_second(self, previous_step: int) -> float:
        """Environment steps of all runs in a second of training since the last report."""
        steps = (self._step - previous_step) * self.plan.num_runs
        seconds, self.seconds_of_report = self.seconds_of_report, 0.0
        return steps / max(seconds, 1e-6)

    def _evaluate(self, previous_step: int) -> dict[str, np.ndarray]:
        """Returns the metrics of the evaluation, NaN where none is due; stops runs early."""
        if self.selection is None:
            return {}
        if not self.selection.is_due(previous_step, self._step):
            nothing = np.full(self.plan.num_runs, np.nan, np.float32)
            return {EVAL_RETURN: nothing, EVAL_LENGTH: nothing.copy()}
        with self.bar.paused():
            metrics = self.selection.evaluate(self._step, ignored=self._ended)
        self._stop(self.selection.reaching(metrics[EVAL_RETURN]))
        return metrics

    def _stop(self, is_reached: np.ndarray) -> None:
        """Stops runs early, `[R]` bool; those that have ended remain as they are."""
        new = is_reached.copy()
        new[list(self._ended)] = False
        if not new.any():
            return
        self.stopped = np.where(new, self._step, self.stopped)
        if not self._is_done:
            self.runs.hold(np.repeat(new, self.plan.workers))

    def _call(self, on_report: OnReport, metrics: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Calls the user's function; adds its own metrics to the row and returns them."""
        report = RunReport(self.plan, self._step, metrics, self.runs)
        add_own_metrics(self.rows, {})
        try:
            with self.bar.paused():
                answer = on_report(report)
            own, self.stop_requested = own_metrics(self.plan, answer, metrics)
        except BaseException:
            if self.run_dir and jax.process_count() == 1:  # other processes do not save with it
                self._save(self.snapshot())
            raise
        add_own_metrics(self.rows, own)
        return own

    def _agree_to_save(self) -> tuple[bool, int]:
        """Returns whether to save, and the signal of any process; every process has to call it.

        The processes also agree on the size of the next chunk and on an early stop.
        """
        since_save = time.perf_counter() - self.last_save
        numbers = distributed.all_gather(
            self.chunk_size, since_save, self.interrupt.signal, self.stop_requested
        )
        self.chunk_size, since_save = numbers[0, :2].tolist()  # process 0 decides
        if numbers[:, 3].any():
            self._stop(np.ones(self.plan.num_runs, bool))
        signal = int(numbers[:, 2].max())
        return self._is_done or bool(signal) or since_save > self.save_seconds, signal

    def _save(self, snapshot: training_runs.RunState) -> None:
        """Writes a checkpoint."""
        if self.directory:
            seconds = time.perf_counter() - self.started
            saved, best = Saved(self.rows, self.num_updates), None
            if not np.isnan(self.stopped).all():
                saved = saved._replace(stopped=self.stopped)
            if self.selection is not None:
                best, score, step = self.selection.selected
                saved = saved._replace(best_score=score, best_step=step)
            self.directory.save(SavedTree(snapshot, best), saved, seconds)
        self.last_save = time.perf_counter()


def with_latest_episodes(
    means: dict[str, np.ndarray], previous: Mapping[str, np.ndarray] | None, all_ended: np.ndarray
) -> None:
    """Fills in the return and length of episodes in a report `[R]`, in place.

    Where no episode ended, they are those of the previous report. They are NaN until every
    environment has completed an episode, because short episodes end first.

    Args:
      means: metrics of the report.
      previous: metrics of the report before, or None.
      all_ended: whether every environment of a run has completed an episode, `[R]`.
    """
    for name in EPISODE_METRICS:
        values = means[name]
        values[~all_ended] = np.nan
        if previous is not None:
            is_missing = np.isnan(values)
            values[is_missing] = previous[name][is_missing]


def report_updates(plan: Plan) -> np.ndarray:
    """Returns the numbers of updates after which a report is due, evenly spaced up to the last."""
    num_updates = plan.config.num_updates
    return np.unique(np.linspace(0, num_updates, plan.num_reports + 1).round().astype(int))[1:]


def next_chunk(report_ends: np.ndarray, num_updates: int, max_size: float) -> tuple[int, bool]:
    """Returns the number of updates in the next chunk, and whether a report is due after it.

    Chunks end at reports, so that reports do not depend on the sizes of chunks.
    """
    end = int(report_ends[np.searchsorted(report_ends, num_updates, side="right")])
    size = min(end - num_updates, max(1, int(max_size)))
    return size, num_updates + size == end
