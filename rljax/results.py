"""What a run leaves behind: its curves, its evaluation and its last state, to look at and to keep.

Neither JAX nor matplotlib is imported here: a saved run is read and plotted without a device.
"""

import dataclasses
import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax import figures, stats

RETURN = "charts/episodic_return"
CURVES, RECORD = "curves.npz", "result.json"
FORMAT = 1


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
    seeds: int  # how many
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
        lead = (*(len(values) for values in self.sweep.values()), self.seeds)
        wanted = {"steps": (np.shape(self.steps), (np.size(self.steps),))}
        for name, values in self.metrics.items():
            wanted[name] = (np.shape(values), (*lead, np.size(self.steps)))
        for name, values in (self.evaluation or {}).items():
            wanted[f"evaluation/{name}"] = (np.shape(values)[: len(lead)], lead)
        for name, (shape, expected) in wanted.items():
            if shape != expected:
                raise ValueError(
                    f"`{name}` has shape {shape}, but for the sweep {list(self.sweep)}, "
                    f"{self.seeds} seeds and {np.size(self.steps)} reports it must be {expected}."
                )

    @property
    def returns(self) -> np.ndarray:
        """The mean return of the episodes that ended since the last report. `[*sweep, seeds, P]`."""
        return self.metric(RETURN)

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
        return f"{self.agent} · {self.env_id} · {_count(self.seeds, 'seed')}"

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
            scores = stats.present_mean(self.evaluation["returns"], -1)
        else:
            returns = np.asarray(self.returns, np.float64)
            last = returns.shape[-1] - 1 - np.argmax(~np.isnan(returns[..., ::-1]), axis=-1)
            scores = np.take_along_axis(returns, last[..., None], axis=-1)[..., 0]
        return scores.reshape(-1, self.seeds)

    def summary(self) -> str:
        """The final returns: interquartile mean over seeds [95 % bootstrap interval]."""
        rows = [[_setting(setting)] for setting in self.settings]
        if RETURN in self.metrics:
            for row, scores in zip(rows, self.scores(evaluated=False), strict=True):
                row.append(f"return {_estimate(scores)}")
        if self.evaluation is not None:
            episodes = int(np.shape(self.evaluation["returns"])[-1]) * self.seeds
            unfinished = np.asarray(self.evaluation["unfinished"]).reshape(-1, self.seeds).sum(-1)
            for row, scores, open_ in zip(rows, self.scores(True), unfinished, strict=True):
                rest = f", {open_} unfinished" if open_ else ""
                row.append(f"evaluation {_estimate(scores)} ({episodes:,} episodes{rest})")
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(map(str.ljust, row, widths)).strip() for row in rows]
        steps = figures.human(float(np.max(self.steps, initial=0)))
        time = f"{steps} steps in {self.seconds:.1f} s, compiled in {self.compile_seconds:.1f} s"
        return "\n".join([f"{self.title} · {time}", *(f"  {row}" for row in table if row)])

    def __repr__(self) -> str:
        parts = [self.title, f"{figures.human(float(np.max(self.steps, initial=0)))} steps"]
        parts += [f"{name} x {len(values)}" for name, values in self.sweep.items()]
        if not self.sweep and RETURN in self.metrics:
            parts.append(f"return {_estimate(self.scores(evaluated=False)[0])}")
        return f"<Result {' · '.join(parts)}>"

    def plot(self, path: str | Path | None = None, metric: str = RETURN, ax: Any = None) -> Any:
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
        path = None if path is None else figures.check_path(path)  # before the work, not after
        alone = len(self.sweep) == 1
        labels = [_setting(s).partition("=")[2] if alone else _setting(s) for s in self.settings]
        lines = [
            figures.Line(self.steps, values, self.agent, label)
            for label, values in zip(labels, self._by_setting(metric), strict=True)
        ]
        figure = figures.learning_curves(
            {self.title: lines}, metric, legend_title="".join(self.sweep) if alone else "",
            sequential=alone, ax=ax,
        )  # fmt: skip
        if path is not None:
            figures.write(figure, path)
        return figure

    def save(self, directory: str | Path) -> Path:
        """Writes `curves.npz` and `result.json`, not `state` and `params` (a checkpoint has them).

        The same result gives the same bytes. Returns the directory.

        Raises:
          ValueError: an array is not of plain numbers, or the config does not fit into JSON.
        """
        directory = Path(directory)
        arrays = {"steps": self.steps}
        arrays |= {f"metrics/{name}": self.metrics[name] for name in sorted(self.metrics)}
        evaluation = self.evaluation or {}
        arrays |= {f"evaluation/{name}": evaluation[name] for name in sorted(evaluation)}
        arrays = {name: np.asarray(values) for name, values in arrays.items()}
        for name, values in arrays.items():
            if values.dtype.kind not in "biuf":  # anything else is pickled, or read back as void
                raise ValueError(f"`{name}` is of {values.dtype}: make it an array of numbers.")
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        record = {"format": FORMAT, **{name: getattr(self, name) for name in _RECORDED}}
        record["curves_sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
        text = json.dumps(record, indent=2, ensure_ascii=False, default=_plain) + "\n"
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / CURVES, buffer.getvalue())
        _write(directory / RECORD, text.encode())
        return directory

    def _by_setting(self, metric: str) -> np.ndarray:
        return np.asarray(self.metric(metric)).reshape(-1, self.seeds, np.size(self.steps))


_RECORDED = (
    "agent", "env_id", "config", "sweep", "seeds", "seed", "compile_seconds", "seconds",
)  # fmt: skip


def load_result(directory: str | Path) -> Result:
    """Reads what `Result.save` wrote, bit for bit; `state` and `params` are None.

    Raises:
      ValueError: there is no result, or a file is damaged, or they are of two different runs.
    """
    directory = Path(directory)
    for path in (directory / RECORD, directory / CURVES):
        if not path.is_file():
            raise ValueError(f"there is no file {path}: give the directory of a run that has ended.")
    curves = (directory / CURVES).read_bytes()
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        version, digest = record["format"], record["curves_sha256"]
        fields = {name: record[name] for name in _RECORDED}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{directory / RECORD} is damaged ({error!r}): run it again.") from None
    if version != FORMAT:
        raise ValueError(
            f"{directory / RECORD} is of format {version}, but this rljax reads {FORMAT}: update it."
        )
    if hashlib.sha256(curves).hexdigest() != digest:
        raise ValueError(
            f"{directory / CURVES} is damaged or not of this run (its SHA-256 is not the one in "
            f"{RECORD}): run it again."
        )
    parts: dict[str, dict[str, np.ndarray]] = {"metrics": {}, "evaluation": {}}
    with np.load(io.BytesIO(curves), allow_pickle=False) as arrays:
        steps = arrays["steps"]
        for name in arrays.files:
            part, _, rest = name.partition("/")
            if rest:
                parts[part][rest] = arrays[name]
    evaluation = parts["evaluation"] or None
    return Result(**fields, steps=steps, metrics=parts["metrics"], evaluation=evaluation)


Run = Result | str | Path  # a result, or the directory where one was saved


def plot_results(
    results: Iterable[Run], path: str | Path | None = None, metric: str = RETURN
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
    path = None if path is None else figures.check_path(path)
    runs = [_as_result(run) for run in results]
    if not runs:
        raise ValueError("`results` is empty: give results, or directories of runs that have ended.")
    pools: dict[str, dict[tuple, dict[int, np.ndarray]]] = {run.env_id: {} for run in runs}
    for run in runs:
        for setting, values in zip(run.settings, run._by_setting(metric), strict=True):
            config = json.dumps({**run.config, **setting}, sort_keys=True, default=_plain)
            key = (run.agent, config, tuple(np.asarray(run.steps).tolist()))
            pool = pools[run.env_id].setdefault(key, {})
            if len(values) > len(pool.get(run.seed, ())):  # equal seeds are equal runs
                pool[run.seed] = values
    panels = {}
    for env_id, pool in pools.items():
        labels = _labels([(agent, json.loads(config)) for agent, config, _ in pool])
        lines = [
            figures.Line(np.asarray(steps), np.concatenate(list(values.values())), agent, label)
            for ((agent, _, steps), values), label in zip(pool.items(), labels, strict=True)
        ]
        counts = sorted({len(line.values) for line in lines})
        seeds = _count(counts[0], "seed") if len(counts) == 1 else f"{counts[0]}–{counts[-1]} seeds"
        panels[f"{env_id} · {seeds}"] = lines
    if len(runs) == 1 or len({line[2:] for lines in panels.values() for line in lines}) == 1:
        panels = {f"{lines[0].group} · {title}": lines for title, lines in panels.items()}
    figure = figures.learning_curves(panels, metric)
    if path is not None:
        figures.write(figure, path)
    return figure


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
        several = isinstance(side, Sequence) and not isinstance(side, str)
        sides.append([_as_result(run) for run in (side if several else [side])])
    worlds = [[run.env_id for run in side] for side in sides]
    if worlds[0] != worlds[1]:
        raise ValueError(f"`x` ran on {worlds[0]} and `y` on {worlds[1]}: give both the same.")
    runs = [run for side in sides for run in side]
    for run in runs:
        if run.sweep:
            raise ValueError(
                f"{run.title} is a sweep of {', '.join(run.sweep)}: compare runs of one setting each."
            )
    evaluated = all(run.evaluation is not None for run in runs)
    scores = []
    for side in sides:
        matrix = np.full((max(run.seeds for run in side), len(side)), np.nan)
        for task, run in enumerate(side):
            matrix[: run.seeds, task] = run.scores(evaluated)[0]
        scores.append(matrix)
    low, high = stats.stratified_bootstrap(tuple(scores), stats.probability_of_improvement)
    probability = float(stats.probability_of_improvement(*scores))
    first = [(side[0].agent, side[0].config) for side in sides]
    names = [f"{a} {label}".strip() for (a, _), label in zip(first, _labels(first), strict=True)]
    return Comparison(names[0], names[1], probability, float(low), float(high))


def _as_result(run: Run) -> Result:
    return run if isinstance(run, Result) else load_result(run)


def _labels(named: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """For each (agent, config): in what it differs from the others of the agent; then a number."""
    labels = []
    for agent, config in named:
        peers = [other for name, other in named if name == agent]
        fields = dict.fromkeys(field for other in peers for field in other)
        differs = [f for f in fields if any(other.get(f) != config.get(f) for other in peers)]
        labels.append(_setting({field: config.get(field) for field in differs}))
    rows = [(agent, label) for (agent, _), label in zip(named, labels, strict=True)]
    return [
        f"{label} ({rows[:i].count(row) + 1})".strip() if row in rows[:i] else label
        for i, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]


def _setting(setting: Mapping[str, Any]) -> str:
    """Such as "learning_rate=0.001, gamma=0.99"."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in setting.items()
    )


def _estimate(scores: np.ndarray) -> str:
    """Such as "497 [481, 500]"; how many seeds are missing, where some are."""
    known = int((~np.isnan(scores)).sum())
    if known == 0:
        return "unknown (no episode ended)"
    text = _digits(stats.iqm(scores))
    if known > 1:
        low, high = stats.stratified_bootstrap(scores)
        text += f" [{_digits(low)}, {_digits(high)}]"
    return text if known == len(scores) else f"{text} of {known} of {len(scores)} seeds"


def _digits(x: Any) -> str:
    return f"{float(x):.4g}" if abs(float(x)) < 1e4 else f"{float(x):,.0f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _plain(x: Any) -> Any:
    if hasattr(x, "tolist"):  # arrays and numbers of numpy and JAX
        return x.tolist()
    raise ValueError(f"the config holds {x!r}, which does not fit into JSON: give plain values.")


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing: a reader never sees half a file."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
