"""Writers to a service such as Weights & Biases, whose runs stand for settings or seeds."""

import abc
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rljax import config as configs
from rljax.experiment.json_lines import Rows
from rljax.experiment.writers_curves import (
    hyperparameters,
    import_extra,
    means,
    runs_of_settings,
    setting_labels,
)

if TYPE_CHECKING:
    from rljax.experiment.plan import Plan

RUNS = ("setting", "each", "one")
MAX_RUNS = 256  # each takes 0.2 seconds to open


class Log(NamedTuple):
    """One run of the service, which several runs of rljax may share.

    Attributes:
      run: the object that `init` returned.
      curves: for each suffix of the names of metrics the runs whose mean it is.
      first_step: rows before this environment step are in it already.
    """

    run: Any
    curves: dict[str, np.ndarray]
    first_step: int = 0


class Service(abc.ABC):
    """The part that `WandB` and `Trackio` share; arguments are described there."""

    extra = ""  # the writer, its package and its extra have one name
    own: tuple[str, ...] = ()  # arguments of `init` that the writer chooses

    def __init__(self, *, runs: str = "setting", **init: Any):
        if runs not in RUNS:
            raise ValueError(
                f"`runs` is {configs.shown(runs)}, but it must be one of {', '.join(RUNS)}."
            )
        self.options = {"runs": runs, **init}  # recorded for a resumed run
        self._runs, self._init = runs, init
        self._logs: list[Log] = []

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({options})"

    def check(self) -> None:
        """Raises a `ValueError` if the package is missing or an option is unknown."""
        name = type(self).__name__
        known = [*inspect.signature(import_extra(self.extra, self.extra).init).parameters]
        for option in self._init:
            if option in self.own:
                raise ValueError(f"`{option}` is chosen by {name}: leave it out.")
            if option not in known:
                raise configs.unknown_key(option, [*known, "runs"], name)

    def check_size(self, plan: "Plan") -> None:
        """Raises a `ValueError` if there are too many runs for the service."""
        if (number := len(self._members(plan))) > MAX_RUNS:
            raise ValueError(
                f'{type(self).__name__}(runs="{self._runs}") would open {number:,} runs, but it '
                f'opens at most {MAX_RUNS}: set runs="one".'
            )

    def open(self, directory: Path | None, rows: Rows, plan: "Plan") -> None:
        """Opens the runs of the service, and logs the rows that they lack."""
        self._logs = []
        given: dict[str, Any] = self._defaults(_experiment(directory, plan)) | self._init
        for labels, runs in self._members(plan):
            config = hyperparameters(plan, runs.reshape(-1))
            config |= {"run_dir": str(directory.absolute())} if directory else {}
            options = given | {"config": config | given.get("config", {})}
            if labels:
                options["name"] = " ".join([given["name"], *labels])
                options = {"group": given["name"]} | options
            curves = _curves(setting_labels(plan), runs, plan.num_seeds)
            self._logs.append(self._start(directory, options, labels, curves))
        for step, metrics in rows:
            self.write(step, metrics)

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        """Logs the curves, unless there is a row of this step already."""
        for run, curves, first_step in self._logs:
            row: dict[str, float] = {"global_step": int(step)}
            for suffix, runs in curves.items():
                row |= {f"{name}{suffix}": x for name, x in means(metrics, runs).items()}
            if step >= first_step:
                run.log(row, step=int(step))

    @abc.abstractmethod
    def close(self) -> None:
        """Finishes the runs of the service."""

    def _members(self, plan: "Plan") -> Sequence[tuple[Sequence[str], np.ndarray]]:
        """Returns for each run of the service its labels, and its runs `[settings, seeds]`."""
        runs, settings = runs_of_settings(plan), setting_labels(plan)
        if self._runs == "one":
            return [((), runs)]
        seeds = [f"seed_{i}" for i in range(plan.num_seeds)]
        by_setting = [((label,) if label else (), runs[[i]]) for i, label in enumerate(settings)]
        if self._runs == "setting" or plan.num_seeds == 1:
            return by_setting
        return [
            ((*labels, seed), of_setting[:, [i]])
            for labels, of_setting in by_setting
            for i, seed in enumerate(seeds)
        ]

    def _defaults(self, experiment: str) -> dict[str, Any]:
        """Returns options for those that are not given."""
        return {"project": "rljax", "name": experiment}

    @abc.abstractmethod
    def _start(
        self, directory: Path | None, options: dict[str, Any], labels: Sequence[str],
        curves: dict[str, np.ndarray],
    ) -> Log:  # fmt: skip
        """Opens one run of the service."""


def _experiment(directory: Path | None, plan: "Plan") -> str:
    """Returns the name of a run directory, or of the plan without one."""
    if directory is None:
        return plan.name or f"{plan.agent}-{plan.env_id}"
    directory = directory.absolute()
    is_program = re.fullmatch(r"program-\d+", directory.name)  # one of several in a directory
    return directory.parent.name if is_program else directory.name


def _curves(labels: Sequence[str], runs: np.ndarray, num_seeds: int) -> dict[str, np.ndarray]:
    """Returns the curves of one run of the service: `{suffix of the metric: runs}`.

    Args:
      labels: a label for each setting of the plan.
      runs: indices of its runs, `[settings, seeds]`.
      num_seeds: number of seeds of the plan.
    """
    curves: dict[str, np.ndarray] = {}
    for seeds in runs:
        suffix = f"/{labels[seeds[0] // num_seeds]}" if len(runs) > 1 else ""
        curves[suffix] = seeds
        if len(seeds) > 1:
            curves |= {f"{suffix}/seed_{i}": seeds[i : i + 1] for i in range(len(seeds))}
    return curves
