"""The result of an experiment: learning curves, evaluation and final states.

Neither JAX nor matplotlib is imported here, so a saved result is quick to load.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.results import figures, statistics, storage

MAX_DIVERGED = 5  # diverged runs named in a summary


class Best(NamedTuple):
    """The best policy of each run by the evaluation during training (`eval_interval`).

    Attributes:
      step: environment steps after which the policy was saved, `[*sweep, seeds]`.
      returns: returns of new episodes of this policy, played after training,
        `[*sweep, seeds, episodes]`. The maximum over training is biased upwards; these are not.
      lengths: steps of these episodes, `[*sweep, seeds, episodes]`.
      state: state of the agent, `[*sweep, seeds, ...]`; None if loaded from files alone.
    """

    step: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    state: Any = None


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Result:
    """The result of `rljax.train`: `num_seeds` runs of every setting of a sweep.

    The leading axes `[*sweep, seeds]` are one axis for each swept field, in the order of `sweep`,
    then one for the seeds. A list of settings is one axis, "setting", whose values are dicts of
    fields. P is the number of reports.

    Attributes:
      agent: name of the agent.
      env_id: id of the environment.
      config: hyperparameters; a swept one is the list of its values.
      sweep: values of each swept field; {} without a sweep.
      num_seeds: number of runs of each setting.
      seed: random seed; run i uses `fold_in(key(seed), i)`.
      steps: environment steps of one run at each report, `[P]`.
      metrics: arrays `[*sweep, seeds, P]` by name, each a mean since the last report; NaN where
        there was nothing to average, such as no complete episode.
      evaluation: greedy episodes of the final policies: "returns" and "lengths",
        `[*sweep, seeds, episodes]`, and "unfinished", `[*sweep, seeds]`.
      state: final `TrainState`, `[*sweep, seeds, ...]`; None if loaded from files.
      params: network parameters, `[*sweep, seeds, ...]`; None if loaded from files.
      diverged: the runs with a NaN or infinite value, in order. For each the index "run" among
        settings and seeds, the "step", the "name" of the metric or parameter, and the "title" of
        the run. Their metrics are NaN from the report in which they diverged.
      compile_seconds: time to compile.
      seconds: time to train.
      plan: the `Plan`, with the user's own environment and pieces; None if loaded from files alone.
      best: the best policies by the evaluation during training; None without `eval_interval`.
      stopped: environment steps after which a run reached `stop_at`, `[*sweep, seeds]`, NaN if it
        did not; None without `stop_at`. The metrics after it repeat its last values.

    Raises:
      ValueError: an array has another shape than described here.
    """

    agent: str
    env_id: str
    config: dict[str, Any]
    sweep: dict[str, list[Any]]
    num_seeds: int
    seed: int
    steps: np.ndarray
    metrics: dict[str, np.ndarray]
    evaluation: dict[str, np.ndarray] | None = None
    state: Any = None
    params: Any = None
    diverged: Sequence[dict[str, Any]] = ()
    compile_seconds: float = 0.0
    seconds: float = 0.0
    plan: Any = None
    best: Best | None = None
    stopped: np.ndarray | None = None

    def __post_init__(self):
        leading = (*(len(values) for values in self.sweep.values()), self.num_seeds)
        shapes: dict[str, tuple] = {"steps": (np.shape(self.steps), (np.size(self.steps),))}
        for name, values in self.metrics.items():
            shapes[name] = (np.shape(values), (*leading, np.size(self.steps)))
        for name, values in (self.evaluation or {}).items():
            shapes[f"evaluation/{name}"] = (np.shape(values)[: len(leading)], leading)
        for name, values in _arrays_of(self.best).items():
            last = () if name == "best/step" else np.shape(values)[-1:]
            shapes[name] = (np.shape(values), (*leading, *last))
        if self.stopped is not None:
            shapes["stopped"] = (np.shape(self.stopped), leading)
        for name, (shape, expected) in shapes.items():
            if shape != expected:
                raise ValueError(
                    f"`{name}` has shape {shape}, but it must be {expected} for the sweep "
                    f"{list(self.sweep)}, {self.num_seeds} seeds and {np.size(self.steps)} reports."
                )

    @property
    def returns(self) -> np.ndarray:
        """Return of the latest episodes at each report, `[*sweep, seeds, P]`.

        It is the mean return of the episodes that were completed since the last report; if there
        were none, that of the last report. It is NaN until every environment has completed an
        episode, because short episodes are completed first.
        """
        return self.metric(figures.EPISODIC_RETURN)

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Swept values of each setting, in the order of the leading axes; `[{}]` if none."""
        settings = []
        for values in itertools.product(*self.sweep.values()):
            setting = {}
            for name, value in zip(self.sweep, values, strict=True):
                setting |= value if isinstance(value, dict) else {name: value}
            settings.append(setting)
        return settings

    @property
    def title(self) -> str:
        """One line, such as "ppo · CartPole-v1 · 8 seeds"."""
        return f"{self.label} · {self.env_id} · {count(self.num_seeds, 'seed')}"

    @property
    def label(self) -> str:
        """The name of the run, or else that of its agent."""
        return self.config.get("name") or self.agent

    def renamed(self, name: str) -> "Result":
        """Returns the result with another name, the label in figures and tables."""
        return dataclasses.replace(self, config={**self.config, "name": name})

    def metric(self, name: str) -> np.ndarray:
        """Returns a metric by name, `[*sweep, seeds, P]`.

        Raises:
          ValueError: there is no metric of this name.
        """
        if name not in self.metrics:
            raise ValueError(
                f"there is no metric `{name}` of {self.agent} on {self.env_id}: the metrics are "
                f"{', '.join(sorted(self.metrics)) or 'none'}."
            )
        return self.metrics[name]

    def scores(self, evaluated: bool) -> np.ndarray:
        """Returns one score per run, `[settings, seeds]`; NaN for a run that diverged.

        Args:
          evaluated: True takes the mean return of the evaluation, in which an unfinished episode
            counts with the return so far. False takes the return in the last report, NaN if the
            run completed no episode.

        Raises:
          ValueError: `evaluated` is True, but the run was not evaluated.
        """
        if evaluated:
            if self.evaluation is None:
                raise ValueError(f"{self.title} was not evaluated: set `eval_episodes` above 0.")
            scores = statistics.present_mean(self.evaluation["returns"], -1)
        else:
            scores = np.asarray(self.returns, np.float64)[..., -1]
        return scores.reshape(-1, self.num_seeds)

    def summary(self) -> str:
        """Returns a table of final scores: interquartile mean over seeds [95 % interval]."""
        rows = [[figures.setting(setting)] for setting in self.settings]
        if figures.EPISODIC_RETURN in self.metrics:
            for row, scores in zip(rows, self.scores(evaluated=False), strict=True):
                row.append(f"return {statistics.describe(scores)}")
        if self.evaluation is not None:
            episodes = int(np.shape(self.evaluation["returns"])[-1]) * self.num_seeds
            unfinished = (
                np.asarray(self.evaluation["unfinished"]).reshape(-1, self.num_seeds).sum(-1)
            )
            for row, scores, number in zip(rows, self.scores(True), unfinished, strict=True):
                note = f", {number} unfinished" if number else ""
                row.append(
                    f"evaluation {statistics.describe(scores)} ({episodes:,} episodes{note})"
                )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(map(str.ljust, row, widths)).strip() for row in rows]
        steps = figures.human(float(np.max(self.steps, initial=0)))
        time = f"{steps} steps in {self.seconds:.1f} s, compiled in {self.compile_seconds:.1f} s"
        lines = [f"{self.title} · {time}", *(f"  {row}" for row in table if row)]
        for run in self.diverged[:MAX_DIVERGED]:
            lines.append(f"  diverged: {run['title']} at step {run['step']:,} ({run['name']})")
        if (more := len(self.diverged) - MAX_DIVERGED) > 0:
            lines.append(f"  diverged: {count(more, 'more run')}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        parts = [self.title, f"{figures.human(float(np.max(self.steps, initial=0)))} steps"]
        parts += [f"{name} x {len(values)}" for name, values in self.sweep.items()]
        if not self.sweep and figures.EPISODIC_RETURN in self.metrics:
            parts.append(f"return {statistics.describe(self.scores(evaluated=False)[0])}")
        return f"<Result {' · '.join(parts)}>"

    def plot(
        self, path: str | Path | None = None, metric: str = figures.EPISODIC_RETURN, ax: Any = None
    ) -> Any:
        """Draws a metric: interquartile mean over seeds and 95 % bootstrap band of each setting.

        Args:
          path: file to write (.png, .pdf or .svg); None writes nothing.
          metric: a name in `metrics`.
          ax: matplotlib axes to draw into; None makes a new figure.

        Returns:
          The matplotlib figure.

        Raises:
          ValueError: the metric is unknown, or `path` has another suffix.
        """
        has_list = any(isinstance(values[0], dict) for values in self.sweep.values())
        one_field = len(self.sweep) == 1 and not has_list  # its name is the title of the legend
        grid = () if has_list else [len(values) for values in self.sweep.values()]
        lines = []
        for setting, values in zip(self.settings, self.by_setting(metric), strict=True):
            label = figures.setting(setting)
            label = label.partition("=")[2] if one_field else label
            lines.append(figures.Line(self.steps, values, self.label, label))
        return figures.learning_curves(
            {self.title: lines}, metric, legend_title="".join(self.sweep) if one_field else "",
            grid=grid, ax=ax, path=path,
        )  # fmt: skip

    def save(self, directory: str | Path) -> Path:
        """Writes `curves.npz` and `result.json`, without `plan` and the states and parameters.

        Equal results give equal bytes.

        Args:
          directory: it is created if it does not exist.

        Returns:
          The directory.

        Raises:
          ValueError: an array does not hold plain numbers, or the config is not JSON.
        """
        arrays = {"steps": self.steps}
        arrays |= {f"metrics/{name}": values for name, values in self.metrics.items()}
        arrays |= {f"evaluation/{name}": values for name, values in (self.evaluation or {}).items()}
        arrays |= _arrays_of(self.best)
        arrays |= {} if self.stopped is None else {"stopped": self.stopped}
        return storage.write(directory, {name: getattr(self, name) for name in _RECORDED}, arrays)

    def by_setting(self, metric: str) -> np.ndarray:
        """Returns a metric by name, `[settings, seeds, P]`."""
        return np.asarray(self.metric(metric)).reshape(-1, self.num_seeds, np.size(self.steps))


_RECORDED = (
    "agent", "env_id", "config", "sweep", "num_seeds", "seed", "diverged", "compile_seconds",
    "seconds",
)  # fmt: skip


def load_result(directory: str | Path) -> Result:
    """Loads a result that `Result.save` wrote, bit for bit, without what it does not save.

    Args:
      directory: a run directory.

    Raises:
      ValueError: there is no result, a file is damaged, or the files are from different runs.

    Example:
      >>> import numpy as np, rljax, tempfile
      >>> metrics = {"charts/episodic_return": np.array([[400.0, 500.0]])}
      >>> steps = np.array([1000, 2000])
      >>> result = rljax.Result("ppo", "CartPole-v1", {"gamma": 0.9}, {}, 1, 0, steps, metrics)
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     loaded = rljax.load_result(result.save(directory))
      >>> loaded.returns
      array([[400., 500.]])
    """
    defaults = {f.name for f in dataclasses.fields(Result) if f.default is not dataclasses.MISSING}
    names = [name for name in _RECORDED if name not in defaults]
    record, arrays = storage.read(directory, names, optional=defaults.intersection(_RECORDED))
    record["diverged"] = tuple(record.get("diverged", ()))
    parts: dict[str, dict[str, np.ndarray]] = {"metrics": {}, "evaluation": {}, "best": {}}
    for name, values in arrays.items():
        part, _, rest = name.partition("/")
        if rest:
            parts[part][rest] = values
    return Result(
        **record, steps=arrays["steps"], metrics=parts["metrics"],
        evaluation=parts["evaluation"] or None, stopped=arrays.get("stopped"),
        best=Best(**parts["best"]) if parts["best"] else None,
    )  # fmt: skip


def _arrays_of(best: Best | None) -> dict[str, np.ndarray]:
    """Returns the arrays that are saved, by name: `{"best/step": ...}`."""
    fields = {} if best is None else best._asdict()
    return {f"best/{name}": array for name, array in fields.items() if name != "state"}


def count(number: int, noun: str) -> str:
    """Returns such as "1 seed" or "2 seeds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
