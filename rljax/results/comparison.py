"""Several runs together: learning curves in one figure, and the probability of improvement."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.results import figures, statistics, storage
from rljax.results.result import Result, count, load_result

Run = Result | str | Path  # a result, or the directory it was saved in


def plot_results(
    results: Iterable[Run] | Mapping[str, Run], path: str | Path | None = None,
    metric: str = figures.EPISODIC_RETURN,
) -> Any:  # fmt: skip
    """Draws several runs in one figure: a panel per environment, a line per setting.

    Runs that differ only in their seed are pooled into one line. The label of a line is the name of
    the run or else its agent, with the hyperparameters that differ between its lines.

    Args:
      results: results, or the directories they were saved in; or a mapping of a name for each.
      path: file to write (.png, .pdf or .svg); None writes nothing.
      metric: a name in `Result.metrics`.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: there are no results, the metric is unknown, a result cannot be loaded, or
        different runs have equal configurations.
    """
    if isinstance(results, Mapping):
        runs = [_as_result(run).renamed(str(name)) for name, run in results.items()]
    else:
        runs = [_as_result(run) for run in results]
    if not runs:
        raise ValueError("`results` is empty: give results, or directories of complete runs.")
    panels = {}
    for env_id, pool in _pooled_seeds(runs, metric).items():
        labels = figures.labels([(name, json.loads(config)) for name, config, _ in pool])
        lines = [
            figures.Line(np.asarray(steps), np.concatenate(list(values.values())), name, label)
            for ((name, _, steps), values), label in zip(pool.items(), labels, strict=True)
        ]
        numbers = [len(line.values) for line in lines]
        low, high = min(numbers), max(numbers)
        seeds = count(low, "seed") if low == high else f"{low} to {high} seeds"
        name = f"{runs[0].label} · " if len({run.label for run in runs}) == 1 else ""
        panels[f"{name}{env_id} · {seeds}"] = lines
    return figures.learning_curves(panels, metric, path=path)


def _pooled_seeds(
    runs: Sequence[Result], metric: str
) -> dict[str, dict[tuple, dict[int, np.ndarray]]]:
    """Returns `{env_id: {(label, config, steps): {seed: values [seeds, P]}}}`."""
    pools: dict[str, dict[tuple, dict[int, np.ndarray]]] = {run.env_id: {} for run in runs}
    for run in runs:
        for setting, values in zip(run.settings, run.by_setting(metric), strict=True):
            config = storage.to_json(_hyperparameters(run) | setting)
            key = (run.label, config, tuple(np.asarray(run.steps).tolist()))
            pool = pools[run.env_id].setdefault(key, {})
            _check_equal(run, values, pool)
            if len(values) > len(pool.get(run.seed, ())):  # equal seeds are the same runs
                pool[run.seed] = values
    return pools


def _check_equal(run: Result, values: np.ndarray, pool: Mapping[int, np.ndarray]) -> None:
    """Checks that a run can be pooled with those of an equal configuration.

    Raises:
      ValueError: it has the seed of another run and another curve, or another seed and its own
        pieces, which a configuration does not describe.
    """
    cure = 'give each a name: `rljax.train(..., name="...")`, or a mapping of names to runs.'
    same = pool.get(run.seed)
    # another number of seeds changes the last bits of each, and so the curves
    if same is not None and len(same) == len(values):
        if not np.array_equal(same, values, equal_nan=True):
            raise ValueError(
                f"two runs of {run.title} have the same configuration and seed, but different "
                f"curves: {cure}"
            )
    elif pool and run.config.get("pieces") and "name" not in run.config:
        raise ValueError(
            f"runs of {run.title} were made with their own `{run.config['pieces'][0]}`, which the "
            f"configuration does not describe: {cure}"
        )


class Comparison(NamedTuple):
    """The probability that a run of `x` scores higher than a run of `y`.

    Attributes:
      x, y: names of the two sides.
      probability: the probability of improvement.
      low, high: its 95 % stratified-bootstrap interval.
    """

    x: str
    y: str
    probability: float
    low: float
    high: float

    def __str__(self):
        return f"P({self.x} > {self.y}) = {self.probability:.2f} [{self.low:.2f}, {self.high:.2f}]"


def compare(x: Run | Sequence[Run], y: Run | Sequence[Run]) -> Comparison:
    """Returns the probability of improvement of `x` over `y`, averaged over environments.

    Scores are the mean returns of the final evaluation if all runs were evaluated, else the last
    returns of training. See Agarwal et al. (2021), https://arxiv.org/abs/2108.13264.

    Args:
      x, y: one run each, or one run for each environment, in the same order.

    Raises:
      ValueError: the environments differ, or a run is a sweep.

    Example:
      >>> import numpy as np, rljax
      >>> def run(agent, returns):
      ...     metrics = {"charts/episodic_return": np.array(returns)[:, None]}
      ...     return rljax.Result(agent, "CartPole-v1", {}, {}, 3, 0, np.array([1000]), metrics)
      >>> print(rljax.compare(run("ppo", [500, 490, 480]), run("dqn", [400, 300, 450])))
      P(ppo > dqn) = 1.00 [1.00, 1.00]
    """
    sides = []
    for side in (x, y):
        is_one_run = isinstance(side, (Result, str, Path))
        sides.append([_as_result(run) for run in ([side] if is_one_run else side)])
    env_ids = [[run.env_id for run in side] for side in sides]
    if env_ids[0] != env_ids[1]:
        raise ValueError(
            f"`x` ran on {env_ids[0]} and `y` on {env_ids[1]}: give runs on the same environments."
        )
    for run in (*sides[0], *sides[1]):
        if run.sweep:
            raise ValueError(
                f"{run.title} is a sweep of {', '.join(run.sweep)}: compare runs of one setting."
            )
    evaluated = all(run.evaluation is not None for side in sides for run in side)
    scores = tuple(_score_matrix(side, evaluated) for side in sides)
    low, high = statistics.stratified_bootstrap(scores, statistics.probability_of_improvement)
    probability = float(statistics.probability_of_improvement(*scores))
    first = [(side[0].label, _hyperparameters(side[0])) for side in sides]
    names = [
        f"{name} {label}".strip()
        for (name, _), label in zip(first, figures.labels(first), strict=True)
    ]
    return Comparison(names[0], names[1], probability, float(low), float(high))


def _score_matrix(runs: Sequence[Result], evaluated: bool) -> np.ndarray:
    """Returns the scores `[seeds, environments]`, NaN where a run has fewer seeds."""
    matrix = np.full((max(run.num_seeds for run in runs), len(runs)), np.nan)
    for task, run in enumerate(runs):
        matrix[: run.num_seeds, task] = run.scores(evaluated)[0]
    return matrix


def _as_result(run: Run) -> Result:
    return run if isinstance(run, Result) else load_result(run)


def _hyperparameters(run: Result) -> dict[str, Any]:
    """Returns the config, sorted, without the entries that differ between equal experiments."""
    others = ("name", "seed", "num_seeds")
    return {k: run.config[k] for k in sorted(run.config) if k not in others}
