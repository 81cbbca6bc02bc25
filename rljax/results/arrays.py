"""The arrays of a result: their shapes, and their names in files."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from rljax.results.result import Result

RECORDED = (
    "agent", "env_id", "config", "sweep", "num_seeds", "seed", "diverged", "compile_seconds",
    "seconds",
)  # fmt: skip
PARTS = ("metrics", "evaluation", "best")  # fields of a result that hold arrays by name


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


def named(result: "Result") -> dict[str, np.ndarray]:
    """Returns the arrays that are saved: `{"steps": ..., "metrics/charts/reward": ...}`."""
    arrays = {"steps": result.steps}
    arrays |= {f"metrics/{name}": values for name, values in result.metrics.items()}
    arrays |= {f"evaluation/{name}": values for name, values in (result.evaluation or {}).items()}
    best = {} if result.best is None else result.best._asdict()
    arrays |= {f"best/{name}": values for name, values in best.items() if name != "state"}
    return arrays if result.stopped is None else arrays | {"stopped": result.stopped}


def curve(result: "Result", metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps `[P]` and the values `[settings, seeds, P]` of a metric.

    A metric of the evaluation during training has only the reports with an evaluation.
    """
    steps, values = np.asarray(result.steps), result.by_setting(metric)
    if metric.startswith("eval/"):
        evaluated = _evaluated(result, values)
        return steps[evaluated], values[..., evaluated]
    return steps, values


def _evaluated(result: "Result", values: np.ndarray) -> np.ndarray:
    """Returns whether each report has an evaluation, `[P]`, from its values `[settings, seeds, P]`.

    A run that has stopped early has a value in every report, so only the runs that still train show
    where the evaluations are. After all runs have stopped, every report counts.
    """
    known = ~np.isnan(values)
    if result.stopped is None:
        return np.asarray(known.any((0, 1)))
    stopped = np.asarray(result.stopped).reshape(*values.shape[:2], 1)
    trains = np.isnan(stopped) | (np.asarray(result.steps) <= stopped)
    trains.reshape(-1, values.shape[-1])[[run["run"] for run in result.diverged]] = False
    return np.asarray((known & trains).any((0, 1)) | ~trains.any((0, 1)))


def by_field(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the fields of a result from its named arrays; `PARTS` are dicts, perhaps empty."""
    fields: dict[str, Any] = {part: {} for part in PARTS}
    for name, values in arrays.items():
        part, _, rest = name.partition("/")
        if rest:
            fields[part][rest] = values
        else:
            fields[part] = values
    return fields


def check_shapes(result: "Result") -> None:
    """Checks the shapes of all arrays.

    Raises:
      ValueError: an array has another shape than `Result` describes.
    """
    lead = (*(len(values) for values in result.sweep.values()), result.num_seeds)
    reports = np.size(result.steps)
    for name, values in named(result).items():
        shape, part = np.shape(values), name.partition("/")[0]
        if name in ("stopped", "best/step"):
            expected = lead
        elif part == "best":
            expected = (*lead, *shape[-1:])
        elif part == "evaluation":
            shape, expected = shape[: len(lead)], lead
        else:
            expected = (*lead, reports) if part == "metrics" else (reports,)
        if shape != expected:
            raise ValueError(
                f"`{name.removeprefix('metrics/')}` has shape {shape}, but it must be {expected} "
                f"for the sweep {list(result.sweep)}, {result.num_seeds} seeds and {reports} "
                "reports."
            )
