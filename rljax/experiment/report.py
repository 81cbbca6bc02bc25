"""The report that `on_report` receives between two chunks of training."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rljax import config as configs
from rljax.experiment.plan import Plan
from rljax.training.runs import Runs
from rljax.types import PyTree, params_of


@dataclasses.dataclass(frozen=True)
class RunReport:
    """The progress of all runs at a report. The leading axes are `[*sweep, seeds]`.

    Attributes:
      plan: the experiment.
      step: environment steps taken by each run.
      flat_metrics: metrics `[R]` by name; settings vary slowest and seeds fastest.
    """

    plan: Plan
    step: int
    flat_metrics: Mapping[str, np.ndarray]
    _runs: Runs

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Metrics since the last report, `[*sweep, seeds]` by name; NaN where there is none."""
        return {name: self.plan.by_setting(x) for name, x in self.flat_metrics.items()}

    @property
    def state(self) -> PyTree:
        """The `TrainState` of all runs, `[*sweep, seeds, ...]`, copied when it is read.

        With several processes, every one has to read it.
        """
        return self.plan.by_setting(self.plan.first_workers(self._runs.snapshot().state))

    @property
    def params(self) -> PyTree:
        """Network parameters, `[*sweep, seeds, ...]`."""
        return params_of(self.state.agent)


OnReport = Callable[[RunReport], "bool | Mapping[str, Any] | None"]


def own_metrics(
    plan: Plan, answer: Any, metrics: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], bool]:
    """Returns the metrics `[R]` that `on_report` returned, and whether it stops the runs.

    Args:
      plan: the experiment.
      answer: what the function returned.
      metrics: the metrics of the report, whose names are taken.

    Raises:
      ValueError: the answer is no bool, None or mapping of new names to numbers.
    """
    if answer is None or isinstance(answer, (bool, np.bool_)):
        return {}, bool(answer)
    if not isinstance(answer, Mapping):
        raise ValueError(
            f"`on_report` returned {configs.shown(answer)}, but it must return True to stop, a "
            "dict of metrics to log, or None."
        )
    own = {}
    for name, value in answer.items():
        if not isinstance(name, str) or name in metrics:
            raise ValueError(
                f"`on_report` returned a metric named {name!r}, but a name must be a string that "
                "no metric of the run has."
            )
        try:
            array = np.asarray(value, np.float32)
            own[name] = np.array(np.broadcast_to(array, plan.leading_shape)).reshape(-1)
        except (TypeError, ValueError):
            raise ValueError(
                f"`on_report` returned {configs.shown(value)} as metric `{name}`, but a metric "
                f"must be a number, or an array of shape {plan.leading_shape}."
            ) from None
    return own, False


def add_own_metrics(rows: list[tuple[int, dict[str, Any]]], own: Mapping[str, np.ndarray]) -> None:
    """Adds metrics to the last row, in place; all rows get the same names, with NaN."""
    row, missing = rows[-1][1], np.full_like(next(iter(rows[-1][1].values())), np.nan)
    row |= own
    for name in rows[0][1]:
        row.setdefault(name, missing.copy())
    for _, earlier in rows[:-1]:
        for name in own:
            earlier.setdefault(name, missing.copy())
