"""The result of an experiment: learning curves, evaluation and final states.

Neither JAX nor matplotlib is imported here, so a saved result is quick to load.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax.results import (
    arrays,
    drawing,
    figures,
    frames,
    health,
    statistics,
    storage,
    sweeps,
    tables,
    texts,
)
from rljax.results.arrays import Best


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
      parts: the result of each compiled program, with its `state`, if the settings of a list need
        several; else ().

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
    parts: Sequence["Result"] = ()

    def __post_init__(self):
        arrays.check_shapes(self)

    @property
    def returns(self) -> np.ndarray:
        """Return of the latest episodes at each report, `[*sweep, seeds, P]`.

        It is the mean return of the episodes that were completed since the last report; if there
        were none, that of the last report. It is NaN until every environment has completed an
        episode, because short episodes are completed first.
        """
        return self.metric(figures.EPISODIC_RETURN)

    @property
    def return_metric(self) -> str:
        """Name of the return in figures: of the evaluation during training, if there is one."""
        name = figures.EVALUATION_RETURN
        return name if name in self.metrics else figures.EPISODIC_RETURN

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Swept values of each setting, in the order of the leading axes; `[{}]` if none."""
        return sweeps.settings(self.sweep)

    @property
    def title(self) -> str:
        """One line, such as "ppo · CartPole-v1 · 8 seeds"."""
        return f"{self.label} · {self.env_id} · {texts.count(self.num_seeds, 'seed')}"

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

    def health(self) -> list[dict[str, Any]]:
        """Returns the runs that show signs of failed learning, at most one sign for each.

        A run shows a sign if all its episodes were equal, if its action values are far outside the
        range of the returns, if its return became constant at the lowest value, or if it lost more
        than half of what it had learned. See docs/robustness.md.

        Returns:
          For each such run its index "run" among settings and seeds, the swept values "setting",
          the "seed", and a "text" with what happened and what may help.
        """
        return health.health(self)

    def ranking(self) -> list[int]:
        """Returns the indices of `settings`, best first; equal ones keep their order.

        The score of a setting is the interquartile mean over seeds of the final evaluation, or of
        the return if there is none. A run that diverged counts as the lowest score, so that a
        setting that diverges in more than a quarter of its runs is behind all that do not.
        """
        return sweeps.ranking(self)

    def best_setting(self, path: str | Path | None = None) -> dict[str, Any]:
        """Returns the swept values of the best setting (see `ranking`); {} without a sweep.

        Args:
          path: TOML file to write, with the complete configuration of this setting, for
            `rljax train FILE.toml`. None writes nothing.

        Raises:
          ValueError: no run of any setting has a score.
        """
        return sweeps.best_setting(self, path)

    def summary(self) -> str:
        """Returns a table of final scores: interquartile mean over seeds [95 % interval].

        The table of a sweep has a row for each setting, best first.
        """
        return tables.summary(self)

    def _repr_html_(self) -> str:
        """Returns the table and the learning curve, which notebooks show."""
        return tables.page(self)

    def frame(self) -> Any:
        """Returns a pandas frame with one row for each setting, seed and report.

        The columns are the swept fields, "seed", "step" and the metrics.

        Raises:
          ValueError: pandas is not installed.
        """
        return frames.of_result(self)

    def __repr__(self) -> str:
        return tables.line(self)

    def plot(
        self, path: str | Path | None = None, metric: str | None = None, ax: Any = None
    ) -> Any:
        """Draws a metric: interquartile mean over seeds and 95 % bootstrap band of each setting.

        After all runs of a setting have stopped early, its curve is dotted. Of more than 12
        settings, the best 6 are in color and the others grey.

        Args:
          path: file to write (.png, .pdf or .svg); None writes nothing.
          metric: a name in `metrics`; None draws the return of the evaluation during training, or
            the episodic return if there is none.
          ax: matplotlib axes to draw into; None makes a new figure.

        Returns:
          The matplotlib figure.

        Raises:
          ValueError: the metric is unknown, or `path` has another suffix.
        """
        return drawing.curves(self, path, metric, ax)

    def heatmap(self, path: str | Path | None = None, ax: Any = None) -> Any:
        """Draws the final scores of a sweep of two fields: interquartile mean over seeds.

        Args:
          path: file to write (.png, .pdf or .svg); None writes nothing.
          ax: matplotlib axes to draw into; None makes a new figure.

        Returns:
          The matplotlib figure.

        Raises:
          ValueError: the run is not a sweep of two fields, or `path` has another suffix.
        """
        return drawing.heatmap(self, path, ax)

    def policy(
        self, setting: int = 0, seed: int = 0, *, best: bool = False, greedy: bool = True,
        random_seed: int = 0,
    ) -> Any:  # fmt: skip
        """Returns one of the trained policies as a function of NumPy observations.

        Args:
          setting: index of the setting in `settings`.
          seed: index of the seed.
          best: the best policy by the evaluation during training (`eval_interval`); False takes
            the final one.
          greedy: take the greedy action; False samples from the policy.
          random_seed: random seed of sampling.

        Returns:
          A `rljax.experiment.policy.Policy`.

        Raises:
          ValueError: there is no such run, it diverged, the states were not loaded, there is no
            best policy, or the agent plans with the state of the environment (`alphazero`).

        Example:
          >>> import numpy as np, rljax
          >>> run = rljax.train(
          ...     "q_learning", "rljax/Maze", num_seeds=2, total_timesteps=400, eval_episodes=0,
          ...     progress=False,
          ... )
          >>> policy = run.policy(seed=1)
          >>> policy(0) in range(4), policy(np.array([0, 1, 2])).shape
          (True, (3,))
        """
        # results import nothing of the experiments until then
        policy_of = importlib.import_module("rljax.experiment.policy").policy_of
        return policy_of(self, setting, seed, best, greedy, random_seed)

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
        record = {name: getattr(self, name) for name in arrays.RECORDED}
        return storage.write(directory, record, arrays.named(self))

    def by_setting(self, metric: str) -> np.ndarray:
        """Returns a metric by name, `[settings, seeds, P]`."""
        return np.asarray(self.metric(metric)).reshape(-1, self.num_seeds, np.size(self.steps))
