"""The folder of a run: what is in it, and what makes a run able to go on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rljax import config as configs
from rljax.experiment import checkpoint
from rljax.training.runs import Runs, Work

Rows = list[tuple[int, dict[str, np.ndarray]]]

ABOUT = """{title}

config.toml     every option of this run
metrics.jsonl   one line a report; a list holds one number a run
curves.npz      the same as arrays, with result.json; rljax.load_result("{path}")
curve.png       the learning curve
checkpoint/     the whole state; the last two are kept

rljax watch {path}
rljax plot {path}
rljax evaluate {path}
rljax resume {path}
"""


def listed_rows(rows: Rows) -> list[Any]:
    """Rows as JSON has them."""
    return [
        [step, {name: values.tolist() for name, values in metrics.items()}]
        for step, metrics in rows
    ]


def rows_of(listed: list[Any]) -> Rows:
    """What `listed_rows` wrote down."""
    return [
        (step, {name: np.asarray(values, np.float32) for name, values in metrics.items()})
        for step, metrics in listed
    ]


class Folder:
    """A run's folder. Made before anything compiles, so that a mistake costs nothing."""

    def __init__(self, path: str | Path, record: Mapping[str, Any], resume: bool = False):
        """Opens a folder for a run.

        Raises:
          ValueError: it holds a run already and `resume` is off; or `resume` is on and the
            config there is another one (each differing key is named), or there is none.
        """
        self.path, self._record = Path(path), dict(record)
        file = self.path / "config.toml"
        if resume:
            if not file.is_file():
                raise ValueError(f"there is no run in {path}: there is no config.toml to resume.")
            checkpoint.check_config(file, {"config": configs.load(file)}, self._record)
            return
        if file.exists():
            raise ValueError(
                f"{path} holds a run already: resume it (`rljax resume {path}`), or give another "
                "`run_dir`."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        # half a file could be neither resumed nor replaced
        temporary = file.with_suffix(".toml.tmp")
        temporary.write_text(configs.dump(self._record), encoding="utf-8")
        temporary.replace(file)

    def read(self, like: Work) -> tuple[Work | None, Rows, int]:
        """The last good checkpoint: the work, the rows, and the updates done by then."""
        found = checkpoint.restore(self.path / "checkpoint", like, self._record)
        if found is None:
            return None, [], 0
        work, meta, _ = found
        return work, rows_of(meta["rows"]), meta["num_updates"]

    def restore(self, runs: Runs) -> tuple[Rows, int]:
        """Puts the last good checkpoint back. Returns the rows and the updates done by then."""
        work, rows, num_updates = self.read(runs.snapshot())
        if work is not None:
            runs.put_back(work)
        return rows, num_updates

    def save(self, work: Work, rows: Rows, num_updates: int) -> None:
        """Writes a checkpoint of everything."""
        meta = {"config": self._record, "rows": listed_rows(rows), "num_updates": num_updates}
        checkpoint.save(self.path / "checkpoint", work, meta, num_updates)

    def describe(self, title: str) -> None:
        """Writes README.txt: what is here, and what to type next."""
        text = ABOUT.format(title=title, path=self.path)
        (self.path / "README.txt").write_text(text, encoding="utf-8")


def new_folder(agent: str, env_id: str, under: str | Path = "runs") -> Path:
    """The first free `runs/<agent>-<env>-<number>`."""
    stem = f"{agent}-{env_id.replace('/', '-')}"
    number = 1
    while (path := Path(under) / f"{stem}-{number}").exists():
        number += 1
    return path
