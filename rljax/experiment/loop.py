"""The host's side of training: between chunks of updates it reports, saves and handles signals."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rljax.experiment.directory import RunDirectory
from rljax.experiment.divergence import check_params, check_report
from rljax.experiment.plan import Plan
from rljax.experiment.progress import Progress
from rljax.experiment.signals import Interrupt
from rljax.experiment.writers import Writer
from rljax.training import distributed
from rljax.training import runs as training_runs
from rljax.training.learner import Report

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
      chunk_size: largest number of updates in the next chunk, adapted to the speed.
      last_save: time of the last checkpoint.
    """

    plan: Plan
    runs: training_runs.Runs
    run_dir: Path | None
    directory: RunDirectory | None
    writers: list[Writer]
    bar: Progress
    interrupt: Interrupt
    save_seconds: float
    rows: list[tuple[int, Mapping[str, Any]]]
    num_updates: int
    chunk_size: float = 1.0
    last_save: float = dataclasses.field(default_factory=time.perf_counter)

    def run(self) -> None:
        """Runs the remaining updates.

        Raises:
          FloatingPointError: a metric or a parameter is NaN or infinite.
          KeyboardInterrupt, SystemExit: a signal was received; the state is saved.
        """
        report_ends = report_updates(self.plan)
        if self.run_dir and not self.num_updates:
            self._save(self.runs.snapshot())  # so that a finite checkpoint always exists
        while not self._is_done:
            size, ends_report = next_chunk(report_ends, self.num_updates, self.chunk_size)
            report = self._advance(size)
            means = self._report(report) if ends_report else None
            self.bar.update(self._step, means)
            if self._agree_to_save() and self.run_dir:
                self._save(self.finite_snapshot())
            if self.interrupt.signal and not self._is_done:
                self.interrupt.exit(self.run_dir)

    def finite_snapshot(self) -> training_runs.RunState:
        """Returns the state of all runs; every process has to call it.

        Raises:
          FloatingPointError: a parameter is NaN or infinite.
        """
        snapshot = self.runs.snapshot()
        agent_states = self.plan.first_workers(snapshot.state.agent)
        check_params(self.plan, agent_states, self.num_updates, self.directory)
        return snapshot

    @property
    def _step(self) -> int:
        """Environment steps taken by each run."""
        return self.num_updates * self.plan.steps_per_update

    @property
    def _is_done(self) -> bool:
        return self.num_updates >= self.plan.config.num_updates

    def _advance(self, size: int) -> Report:
        """Runs one chunk and adapts the size of the next one to the time it took."""
        start = time.perf_counter()
        distributed.count_progress()
        report = self.runs.advance(size)
        seconds = max(time.perf_counter() - start, 1e-6)
        self.chunk_size = min(size * SECONDS_PER_CHUNK / seconds, 2 * max(self.chunk_size, size))
        self.num_updates += size
        check_report(self.plan, report, self.directory)
        return report

    def _report(self, report: Report) -> dict[str, np.ndarray]:
        """Writes a row of metrics and starts the next report."""
        means = training_runs.means(report)
        self.rows.append((self._step, means))
        for writer in self.writers:
            writer.write(self._step, means)
        self.runs.clear_report()
        return means

    def _agree_to_save(self) -> bool:
        """Agrees on the chunk size, on signals and on saving; every process has to call it."""
        since_save = time.perf_counter() - self.last_save
        numbers = distributed.all_gather(self.chunk_size, since_save, self.interrupt.signal)
        self.chunk_size, since_save = numbers[0, :2].tolist()  # process 0 decides
        self.interrupt.signal = int(numbers[:, 2].max())
        return self._is_done or bool(self.interrupt.signal) or since_save > self.save_seconds

    def _save(self, snapshot: training_runs.RunState) -> None:
        """Writes a checkpoint."""
        if self.directory:
            self.directory.save(snapshot, self.rows, self.num_updates)
        self.last_save = time.perf_counter()


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
