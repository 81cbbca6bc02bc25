"""The options of a run besides the hyperparameters of its agent, in one table.

`rljax.train`, `rljax.resume`, config.toml and the command line take their names and defaults from
here. Nothing heavy is imported, so that `rljax --help` answers at once.
"""

from pathlib import Path
from typing import Any, NamedTuple

from rljax.config import load


class RunOption(NamedTuple):
    """One keyword argument of `rljax.train`.

    Attributes:
      name: its name in Python, in TOML and on the command line.
      help: one line without the default.
      default: its default in `rljax.train`.
      recorded: config.toml holds it, so it is part of what is run.
      resumable: `rljax.resume` takes it, so it may change when a run is resumed.
    """

    name: str
    help: str
    default: Any = None
    recorded: bool = False
    resumable: bool = False


_ALL = (
    RunOption(
        "num_seeds", "number of independent runs, trained side by side", 1, recorded=True
    ),
    RunOption("seed", "random seed; run i uses fold_in(key(seed), i)", 0, recorded=True),
    RunOption(
        "name", "label of the run in figures and tables (the agent)", recorded=True
    ),
    RunOption("run_dir", "directory for checkpoints, metrics and the result"),
    RunOption("num_reports", "number of points of the learning curves", 50, recorded=True),
    RunOption(
        "eval_episodes", "evaluation episodes of each final policy; 0 for none", 100,
        resumable=True,
    ),
    RunOption(
        "eval_interval", "environment steps between evaluations; 0 for none", 0,
        recorded=True,
    ),
    RunOption(
        "stop_at", "return of an evaluation at which training stops early", recorded=True
    ),
    RunOption(
        "stop_by", "stop by the median over seeds, or each seed on its own",
        "median", recorded=True,
    ),
    RunOption("progress", "progress bar on standard error; --no-progress to hide", resumable=True),
    RunOption(
        "writers", "writers of metrics: jsonl, tensorboard, wandb, trackio", ("jsonl",),
        resumable=True,
    ),
    RunOption("save_seconds", "minimum seconds between two checkpoints", 30.0, resumable=True),
    RunOption("env_params", "parameters of the environment, by name", recorded=True),
    RunOption("settings", "a list of settings to train, of any options", recorded=True),
    RunOption("resume", "continue from the last checkpoint in run_dir", False),
    RunOption("initial_params", "directory of a run whose final parameters are the initial ones"),
    RunOption(
        "devices", "devices that train each run together by averaging", recorded=True
    ),
)  # fmt: skip
RUN_OPTIONS: dict[str, RunOption] = {option.name: option for option in _ALL}
RECORDED = tuple(option.name for option in _ALL if option.recorded)
RESUMABLE = tuple(option.name for option in _ALL if option.resumable)


def read_record(run_dir: str | Path) -> dict[str, Any]:
    """Returns the values of config.toml in the directory of a run.

    Raises:
      ValueError: the directory contains no run.
    """
    file = Path(run_dir) / "config.toml"
    if not file.is_file():
        raise ValueError(f"there is no run in {run_dir}: give the directory of a run.")
    return load(file)
