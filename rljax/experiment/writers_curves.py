"""The curves that writers draw of a sweep: the mean over the seeds of a setting, and each run."""

import importlib
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rljax.experiment.json_lines import one_per_run
from rljax.results import sweeps, texts

if TYPE_CHECKING:
    from rljax.experiment.plan import Plan

MAX_LABEL = 80  # characters of a label, which is part of a path


def setting_labels(plan: "Plan") -> list[str]:
    """Returns a different label for each setting, fit for a path: "learning_rate=0.001"; [""]."""
    if not plan.sweep:
        return [""]
    labels = []
    for index, setting in enumerate(sweeps.settings(plan.sweep)):
        label = texts.setting(setting).replace(", ", ",").replace("/", "-")
        is_long = len(label) > MAX_LABEL
        labels.append(f"{index}:{label[:MAX_LABEL]}" if is_long or label in labels else label)
    return labels


def import_extra(extra: str, module: str) -> Any:
    """Imports the package that a writer needs.

    Raises:
      ValueError: it cannot be imported; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the writer `{extra}` needs the package {module}, which cannot be imported ({error}): "
            f'pip install "rljax-research[{extra}]".'
        ) from None


def runs_of_settings(plan: "Plan") -> np.ndarray:
    """Returns the indices of the runs, `[settings, seeds]`."""
    return np.arange(plan.num_runs).reshape(-1, plan.num_seeds)


def hyperparameters(plan: "Plan", runs: ArrayLike) -> dict[str, Any]:
    """Returns what a user may filter runs by: the options, the versions, and the seed.

    The options are those of config.toml; a swept one has the value of the setting of the runs. For
    a single run, `seed_index` is the i of `fold_in(key(seed), i)`.

    Args:
      plan: the plan.
      runs: indices of the runs; of all settings together the options keep their lists.
    """
    runs = np.atleast_1d(runs)
    values, found = plan.record(), {int(run) // plan.num_seeds for run in runs}
    if len(found) == 1:
        swept = (*plan.sweep, "settings")
        values = {name: value for name, value in values.items() if name not in swept}
        values |= sweeps.settings(plan.sweep)[found.pop()]
    if len(runs) == 1:
        values["seed_index"] = int(runs[0]) % plan.num_seeds
    return values | {
        "rljax": sys.modules["rljax"].__version__, "jax": metadata.version("jax"),
        "jaxlib": metadata.version("jaxlib"), "python": platform.python_version(),
    }  # fmt: skip


def means(metrics: Mapping[str, ArrayLike], runs: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Returns the mean of each metric over runs that have a value; without it where none has.

    Args:
      metrics: one number, or one for each run, by name.
      runs: indices of the runs.
    """
    found = {}
    for name in sorted(metrics):
        values = one_per_run(name, metrics[name]).astype(np.float64)
        values = values[runs] if values.ndim else values
        if not np.isnan(values).all():
            found[name] = float(np.nanmean(values))
    return found
