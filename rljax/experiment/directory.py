"""The directory of a run: its config, checkpoints and results, which make it resumable."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax import config as configs
from rljax.envs import host
from rljax.experiment import checkpoint
from rljax.experiment.writers import Rows
from rljax.training import distributed
from rljax.training.runs import Runs, RunState

README = """{title}

config.toml     all options of this run
metrics.jsonl   one line per report; lists hold one number per run
curves.npz      the same as arrays, with result.json; rljax.load_result("{path}")
curve.png       the learning curve
checkpoint/     the complete state; the last two are kept

rljax watch {path}
rljax plot {path}
rljax evaluate {path}
rljax resume {path}
"""


class RunDirectory:
    """The directory of a run. It is opened before anything compiles, so that errors come early."""

    def __init__(self, path: str | Path, record: Mapping[str, Any], resume: bool = False):
        """Creates the directory of a new run, or opens that of a run to resume.

        Args:
          path: the directory.
          record: plain values of config.toml.
          resume: the run exists already.

        Raises:
          ValueError: the directory contains a run and `resume` is False; or `resume` is True and
            there is no run, or its config differs (each different key is named).
        """
        self.path, self._record = Path(path), dict(record)
        file = self.path / "config.toml"
        if resume:
            if not file.is_file():
                raise ValueError(f"there is no run in {path} to resume: it has no config.toml.")
            checkpoint.check_config(file, {"config": configs.load(file)}, self._record)
            return
        if file.exists():
            raise ValueError(
                f"{path} already contains a run: resume it with `rljax resume {path}`, or choose "
                "another `run_dir`."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        # written atomically: a run with an incomplete config.toml could not be resumed
        temporary = file.with_suffix(".toml.tmp")
        temporary.write_text(configs.dump(self._record), encoding="utf-8")
        temporary.replace(file)

    def load(self, like: RunState) -> tuple[RunState | None, Rows, int]:
        """Returns the last undamaged checkpoint: state, rows and number of updates done."""
        found = checkpoint.restore(self.path / "checkpoint", like, self._record)
        if found is None:
            return None, [], 0
        state, meta, _ = found
        return state, rows_from_json(meta["rows"]), meta["num_updates"]

    def save(self, state: RunState, rows: Rows, num_updates: int) -> None:
        """Writes a checkpoint of the complete state."""
        meta = {"config": self._record, "rows": rows_to_json(rows), "num_updates": num_updates}
        checkpoint.save(self.path / "checkpoint", state, meta, num_updates)

    def write_readme(self, title: str) -> None:
        """Writes README.txt, which lists the files and the commands that use them."""
        text = README.format(title=title, path=self.path)
        (self.path / "README.txt").write_text(text, encoding="utf-8")


def restore(directory: RunDirectory | None, runs: Runs) -> tuple[Rows, int]:
    """Restores the last checkpoint, if there is one; process 0 reads it for all processes.

    Args:
      directory: the run directory; None in other processes, and for runs without a directory.
      runs: the runs to restore.

    Returns:
      The rows and the number of updates up to the checkpoint.
    """
    if directory is None and jax.process_count() == 1:
        return [], 0
    like = runs.snapshot()
    state, rows, num_updates = directory.load(like) if directory else (None, [], 0)
    text = json.dumps([num_updates, rows_to_json(rows)]) if state is not None else None
    text = distributed.broadcast_text(text)
    if text is None:
        return [], 0
    runs.restore(distributed.broadcast(like if state is None else state))
    host.close(like.state.env)
    num_updates, listed = json.loads(text)
    return rows_from_json(listed), num_updates


def rows_to_json(rows: Rows) -> list[Any]:
    """Returns rows as lists and plain numbers."""
    return [
        [step, {name: values.tolist() for name, values in metrics.items()}]
        for step, metrics in rows
    ]


def rows_from_json(listed: list[Any]) -> Rows:
    """Returns the rows that `rows_to_json` was given."""
    return [
        (step, {name: np.asarray(values, np.float32) for name, values in metrics.items()})
        for step, metrics in listed
    ]


def new_directory(agent: str, env_id: str, parent: str | Path = "runs") -> Path:
    """Returns the first unused path `runs/<agent>-<env>-<number>`."""
    stem = f"{agent}-{env_id.replace('/', '-')}"
    number = 1
    while (path := Path(parent) / f"{stem}-{number}").exists():
        number += 1
    return path
