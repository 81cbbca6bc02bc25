"""Where a run was trained: versions, devices, date and commit, in `provenance.json`.

The file has one entry for each process that trained a part of the run. Nothing in it is compared
with the options of a resumed run, which takes over `eval_episodes`, `writers` and `save_seconds`.
"""

import contextlib
import datetime
import os
import platform
import socket
import subprocess
import sys
import warnings
from collections.abc import Container, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from rljax.experiment.checkpoint_file import FORMAT
from rljax.experiment.writers import writer_from_record
from rljax.ops.platform import num_cores
from rljax.results import storage
from rljax.training.parallel import Placement

NAME = "provenance.json"
ENTRY = {
    "options", "num_updates", "seconds", "num_shards", "jax", "jaxlib", "device", "num_cores",
}  # what a resumed run reads  # fmt: skip
EXACT = ("jax", "jaxlib", "device")  # a run continues with the same bits if these are equal


def read_entries(directory: Path) -> list[dict[str, Any]]:
    """Returns the entries of a directory; [] if there are none, or with a warning if damaged."""
    path = directory / NAME
    if not path.exists():
        return []
    try:
        entries = storage.read_record(path)["processes"]
        if all(entry.keys() >= ENTRY for entry in entries):
            return list(entries)
        damage = f"{path} has entries of another version."
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        damage = str(error)
    warnings.warn(
        f"the time, the grouping and the options of the earlier part of the run are not known: "
        f"{damage}",
        stacklevel=1,  # the same place for all callers: shown once
    )
    return []


def recorded_options(directory: Path, given: Container[str]) -> dict[str, Any]:
    """Returns the options that the last process of a run had, without those in `given`.

    Of the writers, only those of rljax can be used again; a warning names another one.
    """
    entries = read_entries(directory)
    options = dict(entries[-1]["options"]) if entries else {}
    options = {name: value for name, value in options.items() if name not in given}
    if "writers" not in options:
        return options
    writers = {str(value): writer_from_record(value) for value in options["writers"]}
    options["writers"] = [writer for writer in writers.values() if writer is not None]
    if own := [name for name, writer in writers.items() if writer is None]:
        warnings.warn(
            f"the run had its own writer `{own[0]}`, which cannot be recorded: pass `writers=` "
            "again to write with it.",
            stacklevel=3,
        )
    return options


class Provenance:
    """The entries of all processes that trained a run, the last one of this process."""

    def __init__(self, directory: Path, options: Mapping[str, Any], resume: bool):
        """Adds an entry; `options` are those that a resumed run takes over."""
        self._path = directory / NAME
        self._earlier = read_entries(directory) if resume else []
        self._entry = _environment() | {"options": dict(options)}
        self._entry |= {"first_update": 0, "num_updates": 0, "seconds": 0.0, "num_shards": None}
        self._write()

    @property
    def num_shards(self) -> int | None:
        """Number of groups that the runs were placed in before, or None if it is not known."""
        numbers = [entry["num_shards"] for entry in self._earlier if entry["num_shards"]]
        return numbers[-1] if numbers else None

    @property
    def earlier_seconds(self) -> float:
        """Training time of earlier processes, up to their last checkpoints."""
        return sum(entry["seconds"] for entry in self._earlier)

    def start(self, placement: Placement, num_updates: int, one_thread: bool) -> None:
        """Completes the entry, and warns if the results may differ in the last bits.

        Args:
          placement: placement of the runs.
          num_updates: updates done before.
          one_thread: matrix products are computed on one core, as those of small updates.
        """
        self._entry |= {"num_shards": placement.num_shards, "runs_per_shard": placement.width}
        self._entry |= {"first_update": num_updates, "num_updates": num_updates}
        changed = [
            f"{name} {self._earlier[-1][name]} (now {self._entry[name]})"
            for name in (EXACT if one_thread else (*EXACT, "num_cores"))
            if num_updates and self._earlier and self._earlier[-1][name] != self._entry[name]
        ]
        if changed:
            warnings.warn(
                f"the run was trained with {', '.join(changed)}: its results may differ in the "
                "last bits from those of an uninterrupted run.",
                stacklevel=3,
            )
        self._write()

    def update(self, num_updates: int, seconds: float) -> None:
        """Records the progress of this process at a checkpoint, and its training time."""
        self._entry |= {"num_updates": num_updates, "seconds": round(seconds, 3)}
        self._write()

    def _write(self) -> None:
        record = {"format": 1, "processes": [*self._earlier, self._entry]}
        storage.replace_file(self._path, storage.with_digest(record))


def _environment() -> dict[str, Any]:
    """Returns the versions, the device, the date and the commit of this process."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": now.isoformat(timespec="seconds"), "rljax": sys.modules["rljax"].__version__,
        "jax": jax.__version__, "jaxlib": metadata.version("jaxlib"),
        "python": platform.python_version(), "checkpoint_format": FORMAT,
        "platform": platform.platform(), "device": _device(),
        "num_devices": jax.device_count(), "num_cores": num_cores(),
        "host": socket.gethostname(), "process": os.getpid(), "commit": commit(),
    }  # fmt: skip


def _device() -> str:
    """Returns the kind of the first device, of a CPU its model."""
    kind, file = jax.local_devices()[0].device_kind, Path("/proc/cpuinfo")
    if kind != "cpu" or not file.exists():
        return kind
    lines = (line for line in file.read_text().splitlines() if line.startswith("model name"))
    return next(lines, kind).partition(":")[2].strip() or kind


def commit() -> str:
    """Returns the git commit of the current directory, with "-dirty" if it is changed, or ""."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    quiet: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 2, "check": True}
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # the repository is not written
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, env=environment, **quiet).stdout.strip()
    return ""
