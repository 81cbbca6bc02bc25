"""Runs of one algorithm, pooled over seeds: what figures and comparisons of several runs show."""

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.results import arrays, figures, storage, texts
from rljax.results.files import load_result
from rljax.results.result import Result

Run = Result | str | Path  # a result, or the directory it was saved in
Runs = Iterable[Run] | Mapping[str, Run]
SAME = ("name", "seed", "num_seeds", "eval_interval", "setting", "settings")  # equal experiments


class Pool(NamedTuple):
    """All runs of one setting of one algorithm on one environment.

    Attributes:
      group: name of the runs, or else of their agent.
      label: values of the hyperparameters that differ within the group; "" if none differs.
      parts: results of different seeds, each with the index of its setting.
    """

    group: str
    label: str
    parts: tuple[tuple[Result, int], ...]

    @property
    def name(self) -> str:
        """Group and label, such as "ppo gamma=0.9"."""
        return f"{self.group} {self.label}".strip()

    @property
    def num_seeds(self) -> int:
        """Number of runs."""
        return sum(run.num_seeds for run, _ in self.parts)

    @property
    def stopped(self) -> np.ndarray | None:
        """Environment steps at which each run stopped early, `[seeds]`; None if none could."""
        if all(run.stopped is None for run, _ in self.parts):
            return None
        each = [
            np.full(run.num_seeds, np.nan)
            if run.stopped is None
            else np.asarray(run.stopped).reshape(-1, run.num_seeds)[setting]
            for run, setting in self.parts
        ]
        return np.concatenate(each)

    def curve(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the steps `[P]` and values `[seeds, P]` of a metric, where all parts have it."""
        curves = [arrays.curve(run, metric) for run, _ in self.parts]
        steps = functools.reduce(np.intersect1d, [steps for steps, _ in curves])
        values = [
            values[setting][:, np.isin(at, steps)]
            for (at, values), (_, setting) in zip(curves, self.parts, strict=True)
        ]
        return steps, np.concatenate(values)

    def scores(self, evaluated: bool) -> np.ndarray:
        """Returns the final score of each run, `[seeds]` (see `Result.scores`)."""
        return np.concatenate([run.scores(evaluated)[setting] for run, setting in self.parts])


def load(results: Runs) -> list[Result]:
    """Returns results, loaded where they are directories and renamed where they have names.

    Raises:
      ValueError: there are none, or one cannot be loaded.
    """
    if isinstance(results, Mapping):
        runs = [_as_result(run).renamed(str(name)) for name, run in results.items()]
    else:
        runs = [_as_result(run) for run in results]
    if not runs:
        raise ValueError("`results` is empty: give results, or directories of complete runs.")
    return runs


def return_metric(runs: Iterable[Result]) -> tuple[str, str]:
    """Returns the metric of a figure of several runs, and a note if they differ in it.

    It is the return of the evaluation during training if all runs have it.
    """
    lacking = [figures.EVALUATION_RETURN not in run.metrics for run in runs]
    if not any(lacking):
        return figures.EVALUATION_RETURN, ""
    if all(lacking):
        return figures.EPISODIC_RETURN, ""
    note = f"{sum(lacking)} of {len(lacking)} results have no evaluation during training"
    return figures.EPISODIC_RETURN, f"return of training: {note}"


def pooled(runs: Iterable[Result], metric: str) -> dict[str, list[Pool]]:
    """Returns the pools of each environment, in the order of the runs.

    Args:
      runs: results; each setting of a sweep is a pool of its own.
      metric: curves of this metric show whether runs of an equal configuration are equal.

    Raises:
      ValueError: a run has no such metric, or different runs have equal configurations.
    """
    found: dict[str, dict[tuple, dict[int, tuple[Result, int]]]] = {}
    for run in runs:
        for index, setting in enumerate(run.settings):
            config = storage.to_json(dict(sorted((_hyperparameters(run) | setting).items())))
            steps = tuple(np.asarray(run.steps).tolist())
            pool = found.setdefault(run.env_id, {}).setdefault((run.label, config, steps), {})
            _check_equal(run, index, pool, metric)
            known = pool.get(run.seed)
            if known is None or run.num_seeds > known[0].num_seeds:  # equal seeds: the same runs
                pool[run.seed] = run, index
    return {env_id: _labelled(pools) for env_id, pools in found.items()}


def _labelled(pools: Mapping[tuple, Mapping[int, tuple[Result, int]]]) -> list[Pool]:
    labels = texts.labels([(group, json.loads(config)) for group, config, _ in pools])
    return [
        Pool(group, label, tuple(parts.values()))
        for ((group, _, _), parts), label in zip(pools.items(), labels, strict=True)
    ]


def _check_equal(
    run: Result, index: int, pool: Mapping[int, tuple[Result, int]], metric: str
) -> None:
    """Checks that a run can be pooled with those of an equal configuration.

    Raises:
      ValueError: it has the seed of another run and another curve, or another seed and its own
        pieces, which a configuration does not describe.
    """
    cure = 'give each a name: `rljax.train(..., name="...")`, or a mapping of names to runs.'
    values = run.by_setting(metric)[index]
    same, at = pool.get(run.seed, (None, 0))
    # another number of seeds changes the last bits of each, and so the curves
    if same is not None and same.num_seeds == run.num_seeds:
        if not np.array_equal(same.by_setting(metric)[at], values, equal_nan=True):
            raise ValueError(
                f"two runs of {run.title} have the same configuration and seed, but different "
                f"curves: {cure}"
            )
    elif pool and run.config.get("pieces") and "name" not in run.config:
        raise ValueError(
            f"runs of {run.title} were made with their own `{run.config['pieces'][0]}`, which the "
            f"configuration does not describe: {cure}"
        )


def _as_result(run: Run) -> Result:
    return run if isinstance(run, Result) else load_result(run)


def _hyperparameters(run: Result) -> dict[str, Any]:
    """Returns the config without the entries that differ between equal experiments."""
    return {name: value for name, value in run.config.items() if name not in SAME}
