"""The directory of a run: its config, checkpoints and results, which make it resumable."""

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax import config as configs
from rljax.envs import host
from rljax.experiment import checkpoint, saved
from rljax.experiment.lengthen import lengthened
from rljax.experiment.lock import Lock
from rljax.experiment.plan import Plan
from rljax.experiment.provenance import Provenance
from rljax.experiment.saved import Saved, SavedTree, saved_from_json, saved_template
from rljax.results.storage import RECORD, replace_file
from rljax.training import distributed
from rljax.training.parallel import Placement
from rljax.training.runs import Runs
from rljax.types import PyTree

README = """{title}

config.toml     all options of this run
metrics.jsonl   one line per report; lists hold one number per run
curves.npz      the same as arrays, with result.json; rljax.load_result("{path}")
curve.png       the learning curve
checkpoint/     the complete state; the last two are kept
provenance.json versions, devices, date and commit

rljax watch {path}
rljax plot {path}
rljax evaluate {path}
rljax resume {path}
"""


class RunDirectory:
    """The directory of a run, locked for other processes.

    It is opened before anything compiles, so that errors come early. Use it in a `with` statement.
    """

    def __init__(
        self, path: str | Path, plan: Plan, options: Mapping[str, Any], resume: bool = False
    ):  # fmt: skip
        """Creates the directory of a new run, or opens that of a run to resume.

        Args:
          path: the directory.
          plan: the run.
          options: options that a resumed run takes over, such as `eval_episodes`.
          resume: the run exists already.

        Raises:
          ValueError: the directory contains a run and `resume` is False; or `resume` is True and
            there is no run, or its config differs (each different key is named); or another
            process trains the run; or the directory cannot be written.
        """
        self.path, self._plan = Path(path), plan
        if resume and not (self.path / "config.toml").is_file():
            raise ValueError(f"there is no run in {path} to resume: it has no config.toml.")
        with writable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.path)
            try:
                self._open(options, resume)
            except BaseException:
                self._lock.release()
                raise
        self._saved_shards: int | None = None

    @property
    def num_shards(self) -> int | None:
        """Number of groups that the runs were placed in before, or None if it is not known."""
        return self._provenance.num_shards

    @property
    def earlier_seconds(self) -> float:
        """Training time of earlier processes."""
        return self._provenance.earlier_seconds

    def load(self, like: SavedTree) -> tuple[SavedTree, Saved] | None:
        """Returns the last undamaged checkpoint and its metadata, or None if there is none."""
        found = saved.load(self.path / "checkpoint", self._plan, like)
        self._saved_shards = found[1].num_shards if found else None
        return found

    def start(self, placement: Placement, num_updates: int, one_thread: bool) -> None:
        """Records the versions and the placement of the part of the run that starts.

        Warns if they may change the last bits; the arguments are those of `Provenance.start`.
        """
        self._num_shards = placement.num_shards
        if self._saved_shards not in (None, self._num_shards):
            warnings.warn(
                f"the {placement.num_runs} runs were trained in {self._saved_shards} groups, one "
                f"for each core or device, but now in {self._num_shards}: the results may differ "
                "in the last bits from those of an uninterrupted run.",
                stacklevel=3,
            )
        with storing(self.path):
            self._provenance.start(placement, num_updates, one_thread)

    def save(self, tree: SavedTree, meta: Saved, seconds: float) -> None:
        """Writes a checkpoint of the complete state; `seconds` is the time since `start`."""
        meta = meta._replace(num_shards=self._num_shards)
        with storing(self.path):
            saved.save(self.path / "checkpoint", self._plan, tree, meta)
            self._provenance.update(meta.num_updates, seconds)

    def write_readme(self, title: str) -> None:
        """Writes README.txt, which lists the files and the commands that use them."""
        text = README.format(title=title, path=self.path)
        (self.path / "README.txt").write_text(text, encoding="utf-8")

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *error: Any) -> None:
        """Lets other processes resume the run."""
        self._lock.release()

    def _open(self, options: Mapping[str, Any], resume: bool) -> None:
        file = self.path / "config.toml"
        if resume:
            check_config(file, self._plan)
        elif file.exists():
            raise ValueError(
                f"{self.path} already contains a run: resume it with `rljax resume {self.path}`, "
                "or choose another `run_dir`."
            )
        self._provenance = Provenance(self.path, options, resume)
        content = configs.dump(self._plan.record()).encode()
        if not resume or content != file.read_bytes():
            (self.path / RECORD).unlink(missing_ok=True)  # a longer run is not complete
            # atomically, and last: a run with an incomplete config.toml could not be resumed
            replace_file(file, content)


def check_config(file: Path, plan: Plan) -> None:
    """Compares the config.toml of a run with a plan.

    Raises:
      ValueError: they differ; each different key is named.
    """
    config = lengthened(configs.load(file), plan)
    checkpoint.check_config(file, config, plan.record(), saved.default_values(plan))


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns an `OSError` into the sentence that a directory cannot be written."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"`run_dir` is {path}, which is a file: give a directory.")
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"`run_dir` is {path}, but it cannot be written ({error.strerror}): choose another "
            "directory."
        ) from None


@contextlib.contextmanager
def storing(path: Path | None) -> Iterator[None]:
    """Turns an `OSError` during a run into a sentence with the way to continue.

    Raises:
      OSError: a file could not be written; the message is complete.
    """
    try:
        yield
    except OSError as error:
        if path is None:
            raise
        raise OSError(
            f"cannot write to {path} ({error.strerror or error}): make room, then continue from "
            f"the last checkpoint with `rljax resume {path}`."
        ) from None


def restore(directory: RunDirectory | None, plan: Plan, runs: Runs) -> tuple[PyTree, Saved]:
    """Restores the last checkpoint, if there is one; process 0 reads it for all processes.

    Args:
      directory: the run directory; None in other processes, and for runs without a directory.
      plan: the experiment.
      runs: the runs to restore.

    Returns:
      The best policies of `saved.SavedTree`, and the metadata of the checkpoint.
    """
    if directory is None and jax.process_count() == 1:
        return None, Saved([], 0)
    like = saved_template(plan, runs.snapshot())
    found = directory.load(like) if directory else None
    text = distributed.broadcast_text(found and found[1].to_json())
    if text is None:
        return None, Saved([], 0)
    tree = distributed.broadcast(found[0] if found else _zeros(like))
    runs.restore(tree.runs)
    host.close(like.runs.state.env)
    return tree.best, saved_from_json(text)


def _zeros(like: SavedTree) -> SavedTree:
    """Returns arrays of the shapes of a checkpoint."""
    return like._replace(best=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like.best))


def new_directory(agent: str, env_id: str, parent: str | Path = "runs") -> Path:
    """Creates the first unused directory `runs/<agent>-<env>-<number>`, and returns its path.

    Of several processes, process 0 creates it. Commands that start at the same time get different
    numbers.

    Raises:
      ValueError: the directory cannot be created.
    """
    stem, path = f"{agent}-{env_id.replace('/', '-')}", None
    for number in itertools.count(1) if distributed.is_first() else ():
        path = Path(parent) / f"{stem}-{number}"
        with writable(path), contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return Path(distributed.broadcast_text(str(path)) or "")
