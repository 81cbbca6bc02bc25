"""What a run leaves behind: its curves, its evaluation and its last state, to look at and to keep.

Neither JAX nor matplotlib is imported here: a saved run is read and plotted without a device.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.results import figures, statistics, storage


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Result:
    """The outcome of `rljax.train`: `seeds` runs of every setting of a sweep.

    The leading axes `[*sweep, seeds]` are one axis for each swept field, in the order of `sweep`,
    then the seeds. A metric is NaN where there was nothing to average: no episode ended.

    Raises:
      ValueError: an array does not have the shape that is written beside it.
    """

    agent: str
    env_id: str
    config: dict[str, Any]  # hyperparameters; a swept one is the list of its values
    sweep: dict[str, list[Any]]  # swept field -> its values; {} without a sweep
    num_seeds: int  # number of runs of each setting
    seed: int  # run i starts from `fold_in(key(seed), i)`
    steps: np.ndarray  # [P] environment steps taken at each report
    metrics: dict[str, np.ndarray]  # [*sweep, seeds, P] each
    evaluation: dict[str, np.ndarray] | None = None  # of the last policy, greedy: "returns" and
    # "lengths" [*sweep, seeds, episodes], "unfinished" [*sweep, seeds]
    state: Any = None  # the last train state, [*sweep, seeds, ...]; None where read from a file
    params: Any = None  # its network parameters, likewise
    compile_seconds: float = 0.0
    seconds: float = 0.0

    def __post_init__(self):
        lead = (*(len(values) for values in self.sweep.values()), self.num_seeds)
        wanted: dict[str, tuple] = {"steps": (np.shape(self.steps), (np.size(self.steps),))}
        for name, values in self.metrics.items():
            wanted[name] = (np.shape(values), (*lead, np.size(self.steps)))
        for name, values in (self.evaluation or {}).items():
            wanted[f"evaluation/{name}"] = (np.shape(values)[: len(lead)], lead)
        for name, (shape, expected) in wanted.items():
            if shape != expected:
                raise ValueError(
                    f"`{name}` has shape {shape}, but for the sweep {list(self.sweep)}, "
                    f"{self.num_seeds} seeds and {np.size(self.steps)} reports it must be {expected}."
                )

    @property
    def returns(self) -> np.ndarray:
        """Mean return of the episodes that ended since the last report, `[*sweep, seeds, P]`."""
        return self.metric(figures.EPISODIC_RETURN)

    @property
    def settings(self) -> list[dict[str, Any]]:
        """The swept values of each setting, in the order of the leading axes: `[{}]` for none."""
        return [
            dict(zip(self.sweep, values, strict=True))
            for values in itertools.product(*self.sweep.values())
        ]

    @property
    def title(self) -> str:
        """Such as "ppo · CartPole-v1 · 8 seeds"."""
        return f"{self.agent} · {self.env_id} · {_count(self.num_seeds, 'seed')}"

    def metric(self, name: str) -> np.ndarray:
        """One metric, `[*sweep, seeds, P]`.

        Raises:
          ValueError: there is none of this name.
        """
        if name not in self.metrics:
            raise ValueError(
                f"there is no metric `{name}` of {self.agent} on {self.env_id}: it has "
                f"{', '.join(sorted(self.metrics)) or 'none'}."
            )
        return self.metrics[name]

    def scores(self, evaluated: bool) -> np.ndarray:
        """One number a run, `[settings, seeds]`; NaN where no episode ended at all.

        The mean return of the evaluation, or that of the last report in which an episode ended.
        An episode that the evaluation did not finish counts by the part played.
        """
        if evaluated:
            if self.evaluation is None:
                raise ValueError(f"{self.title} was not evaluated: train it with an evaluation.")
            scores = statistics.present_mean(self.evaluation["returns"], -1)
        else:
            returns = np.asarray(self.returns, np.float64)
            last = returns.shape[-1] - 1 - np.argmax(~np.isnan(returns[..., ::-1]), axis=-1)
            scores = np.take_along_axis(returns, last[..., None], axis=-1)[..., 0]
        return scores.reshape(-1, self.num_seeds)

    def summary(self) -> str:
        """The final returns: interquartile mean over seeds [95 % bootstrap interval]."""
        rows = [[figures.setting(setting)] for setting in self.settings]
        if figures.EPISODIC_RETURN in self.metrics:
            for row, scores in zip(rows, self.scores(evaluated=False), strict=True):
                row.append(f"return {statistics.describe(scores)}")
        if self.evaluation is not None:
            episodes = int(np.shape(self.evaluation["returns"])[-1]) * self.num_seeds
            unfinished = (
                np.asarray(self.evaluation["unfinished"]).reshape(-1, self.num_seeds).sum(-1)
            )
            for row, scores, open_ in zip(rows, self.scores(True), unfinished, strict=True):
                rest = f", {open_} unfinished" if open_ else ""
                row.append(
                    f"evaluation {statistics.describe(scores)} ({episodes:,} episodes{rest})"
                )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(map(str.ljust, row, widths)).strip() for row in rows]
        steps = figures.human(float(np.max(self.steps, initial=0)))
        time = f"{steps} steps in {self.seconds:.1f} s, compiled in {self.compile_seconds:.1f} s"
        return "\n".join([f"{self.title} · {time}", *(f"  {row}" for row in table if row)])

    def __repr__(self) -> str:
        parts = [self.title, f"{figures.human(float(np.max(self.steps, initial=0)))} steps"]
        parts += [f"{name} x {len(values)}" for name, values in self.sweep.items()]
        if not self.sweep and figures.EPISODIC_RETURN in self.metrics:
            parts.append(f"return {statistics.describe(self.scores(evaluated=False)[0])}")
        return f"<Result {' · '.join(parts)}>"

    def plot(
        self, path: str | Path | None = None, metric: str = figures.EPISODIC_RETURN, ax: Any = None
    ) -> Any:
        """Draws a metric: interquartile mean over seeds, 95 % bootstrap band, a line a setting.

        Args:
          path: where to write the figure (.png, .pdf or .svg); None writes nothing.
          metric: a name in `metrics`.
          ax: matplotlib axes to draw into; otherwise a new figure is made.
        Returns:
          the matplotlib figure.
        Raises:
          ValueError: an unknown metric, or a path that does not end so.
        """
        alone = len(self.sweep) == 1  # then its name is the title of the legend
        lines = []
        for setting, values in zip(self.settings, self._by_setting(metric), strict=True):
            label = figures.setting(setting)
            label = label.partition("=")[2] if alone else label
            lines.append(figures.Line(self.steps, values, self.agent, label))
        return figures.learning_curves(
            {self.title: lines}, metric, legend_title="".join(self.sweep) if alone else "",
            sequential=alone, ax=ax, path=path,
        )  # fmt: skip

    def save(self, directory: str | Path) -> Path:
        """Writes `curves.npz` and `result.json`, not `state` and `params` (a checkpoint has them).

        The same result gives the same bytes. Returns the directory.

        Raises:
          ValueError: an array is not of plain numbers, or the config does not fit into JSON.
        """
        arrays = {"steps": self.steps}
        arrays |= {f"metrics/{name}": values for name, values in self.metrics.items()}
        arrays |= {f"evaluation/{name}": values for name, values in (self.evaluation or {}).items()}
        return storage.write(directory, {name: getattr(self, name) for name in _RECORDED}, arrays)

    def _by_setting(self, metric: str) -> np.ndarray:
        return np.asarray(self.metric(metric)).reshape(-1, self.num_seeds, np.size(self.steps))


_RECORDED = (
    "agent", "env_id", "config", "sweep", "num_seeds", "seed", "compile_seconds", "seconds",
)  # fmt: skip


def load_result(directory: str | Path) -> Result:
    """Reads what `Result.save` wrote, bit for bit; `state` and `params` are None.

    Raises:
      ValueError: there is no result, or a file is damaged, or they are of two different runs.
    """
    record, arrays = storage.read(directory, _RECORDED)
    parts: dict[str, dict[str, np.ndarray]] = {"metrics": {}, "evaluation": {}}
    for name, values in arrays.items():
        part, _, rest = name.partition("/")
        if rest:
            parts[part][rest] = values
    evaluation = parts["evaluation"] or None
    return Result(**record, steps=arrays["steps"], metrics=parts["metrics"], evaluation=evaluation)


Run = Result | str | Path  # a result, or the directory where one was saved


def plot_results(
    results: Iterable[Run], path: str | Path | None = None, metric: str = figures.EPISODIC_RETURN
) -> Any:
    """Draws several runs in one figure: a panel for each environment, a line a setting.

    Runs that differ in their seed alone are pooled into one line. Labels tell only in what the
    lines of an agent differ.

    Args:
      results: results or the directories where they were saved.
      path, metric: as of `Result.plot`.
    Raises:
      ValueError: no results, an unknown metric, or what `load_result` raises.
    """
    runs = [_as_result(run) for run in results]
    if not runs:
        raise ValueError("`results` is empty: give results, or directories of runs that ended.")
    pools: dict[str, dict[tuple, dict[int, np.ndarray]]] = {run.env_id: {} for run in runs}
    for run in runs:
        for setting, values in zip(run.settings, run._by_setting(metric), strict=True):
            config = storage.to_json(_hyperparameters(run) | setting)
            key = (run.agent, config, tuple(np.asarray(run.steps).tolist()))
            pool = pools[run.env_id].setdefault(key, {})
            if len(values) > len(pool.get(run.seed, ())):  # equal seeds are equal runs
                pool[run.seed] = values
    panels = {}
    for env_id, pool in pools.items():
        labels = figures.labels([(agent, json.loads(config)) for agent, config, _ in pool])
        lines = [
            figures.Line(np.asarray(steps), np.concatenate(list(values.values())), agent, label)
            for ((agent, _, steps), values), label in zip(pool.items(), labels, strict=True)
        ]
        counts = sorted({len(line.values) for line in lines})
        seeds = (
            _count(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
        )
        agent = f"{runs[0].agent} · " if len({run.agent for run in runs}) == 1 else ""
        panels[f"{agent}{env_id} · {seeds}"] = lines
    return figures.learning_curves(panels, metric, path=path)


class Comparison(NamedTuple):
    """How likely a run of `x` ends better than one of `y`, with its 95 % bootstrap interval."""

    x: str
    y: str
    probability: float
    low: float
    high: float

    def __str__(self):
        return f"P({self.x} > {self.y}) = {self.probability:.2f} [{self.low:.2f}, {self.high:.2f}]"


def compare(x: Run | Sequence[Run], y: Run | Sequence[Run]) -> Comparison:
    """The probability of improvement of `x` over `y`, averaged over environments.

    By the evaluation of the last policies where all were evaluated, else by the last returns.

    Args:
      x, y: one run each, or one run for each environment, in the same order.
    Raises:
      ValueError: other environments, or a sweep among them.
    """
    sides = []
    for side in (x, y):
        alone = isinstance(side, (Result, str, Path))
        sides.append([_as_result(run) for run in ([side] if alone else side)])
    worlds = [[run.env_id for run in side] for side in sides]
    if worlds[0] != worlds[1]:
        raise ValueError(f"`x` ran on {worlds[0]} and `y` on {worlds[1]}: give both the same.")
    for run in (*sides[0], *sides[1]):
        if run.sweep:
            raise ValueError(
                f"{run.title} is a sweep of {', '.join(run.sweep)}: compare runs of one setting."
            )
    evaluated = all(run.evaluation is not None for side in sides for run in side)
    scores = []
    for side in sides:
        matrix = np.full((max(run.num_seeds for run in side), len(side)), np.nan)
        for task, run in enumerate(side):
            matrix[: run.num_seeds, task] = run.scores(evaluated)[0]
        scores.append(matrix)
    low, high = statistics.stratified_bootstrap(
        tuple(scores), statistics.probability_of_improvement
    )
    probability = float(statistics.probability_of_improvement(*scores))
    first = [(side[0].agent, _hyperparameters(side[0])) for side in sides]
    names = [
        f"{agent} {label}".strip()
        for (agent, _), label in zip(first, figures.labels(first), strict=True)
    ]
    return Comparison(names[0], names[1], probability, float(low), float(high))


def _as_result(run: Run) -> Result:
    return run if isinstance(run, Result) else load_result(run)


def _hyperparameters(run: Result) -> dict[str, Any]:
    """The config without what tells two runs of one experiment apart, in one order."""
    return {k: run.config[k] for k in sorted(run.config) if k not in ("seed", "num_seeds")}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
