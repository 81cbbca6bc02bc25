"""Evaluation during training: the best policy of each run, and early stopping."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import numpy as np

from rljax.experiment.evaluator import Evaluator
from rljax.experiment.plan import Plan
from rljax.results.figures import EVALUATION_RETURN
from rljax.results.result import Best
from rljax.training import acting
from rljax.training.batching import choose
from rljax.training.runs import Runs
from rljax.types import PyTree

EVAL_RETURN, EVAL_LENGTH = EVALUATION_RETURN, "eval/episodic_length"


class Selected(NamedTuple):
    """The best policies so far.

    Attributes:
      states: the acting part of their agent states, `[R, ...]`.
      score: mean return of the evaluation in which they were the best, `[R]`; NaN before the first.
      step: environment steps of a run at that evaluation, `[R]` int.
    """

    states: PyTree
    score: np.ndarray
    step: np.ndarray


class Selection:
    """Evaluates the policies of runs at some reports, and keeps the best of each run.

    Attributes:
      evaluator: the compiled evaluation.
      selected: the best policies so far.
    """

    def __init__(
        self, plan: Plan, runs: Runs, num_episodes: int, num_shards: int | None,
        selected: Selected | None = None,
    ):  # fmt: skip
        """Takes the present policies for the best ones, or those selected before.

        Args:
          plan: the experiment.
          runs: its compiled runs.
          num_episodes, num_shards: as those of `Evaluator`.
          selected: the best policies up to a checkpoint.
        """
        self._plan, self._runs = plan, runs
        self.evaluator = Evaluator(plan, num_episodes, num_shards=num_shards)
        self._take = partial(acting.keep, leaves=self.evaluator.part.leaves)
        if selected is None:
            no_score = np.full(plan.num_runs, np.nan)
            selected = Selected(self._states(), no_score, np.zeros(plan.num_runs, np.int64))
        self.selected = selected

    def is_due(self, previous_step: int, step: int) -> bool:
        """Whether an evaluation is due at a report: at the first one after each interval."""
        interval = self._plan.eval_interval
        return step // interval > previous_step // interval or step == self._plan.total_steps

    def evaluate(self, step: int, ignored: Iterable[int]) -> dict[str, np.ndarray]:
        """Evaluates all runs and updates the best policies; every process has to call it.

        Args:
          step: environment steps of each run.
          ignored: runs that have diverged or stopped; their best policies do not change.

        Returns:
          Mean return and mean length of the episodes of each run, `[R]`, by name of the metric.
        """
        states, best = self._states(), self.selected
        episodes = self.evaluator(states, number=step // self._plan.steps_per_update)
        score = episodes["returns"].mean(axis=-1)
        is_better = (score > best.score) | (np.isnan(best.score) & ~np.isnan(score))
        is_better[list(ignored)] = False
        self.selected = Selected(
            choose(is_better, states, best.states),
            np.where(is_better, score, best.score), np.where(is_better, step, best.step),
        )  # fmt: skip
        length = np.asarray(episodes["lengths"]).mean(axis=-1)
        return {EVAL_RETURN: score.astype(np.float32), EVAL_LENGTH: length.astype(np.float32)}

    def result(self) -> Best:
        """Returns the best policies, evaluated in environments that did not select them."""
        states, _, step = self.selected
        episodes = self.evaluator(states)
        return Best(*map(self._plan.by_setting, (
            step, episodes["returns"], np.asarray(episodes["lengths"]), states
        )))  # fmt: skip

    def reaching(self, score: np.ndarray) -> np.ndarray:
        """Returns which runs are to stop after an evaluation with mean returns `[R]`, bool."""
        if self._plan.stop_at is None:
            return np.zeros(len(score), bool)
        if self._plan.stop_by == "seed":
            return score >= self._plan.stop_at
        reaches = [
            bool(finite.size) and np.median(finite) >= self._plan.stop_at
            for finite in (x[~np.isnan(x)] for x in score.reshape(-1, self._plan.num_seeds))
        ]
        return np.repeat(reaches, self._plan.num_seeds)

    def _states(self) -> PyTree:
        return self._plan.first_workers(self._runs.part(self._take))
