"""Checkpoints in a directory: atomic writes, the newest few kept, damaged ones skipped.

A checkpoint is one pytree and its metadata in one file (see `checkpoint_file`), restored bit for
bit. One process writes to a directory; any may read.
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rljax.experiment import checkpoint_file
from rljax.experiment.checkpoint_file import DamagedCheckpoint
from rljax.results.storage import replacing
from rljax.types import PyTree


def save(
    directory: str | Path, tree: PyTree, meta: Mapping[str, Any], step: int, keep: int = 2
) -> Path:
    """Writes `checkpoint-{step}.rljax`, then deletes all but the newest `keep` checkpoints.

    The write is atomic: if the machine stops during it, the older checkpoints remain intact.

    Args:
      directory: it is created if it does not exist.
      tree: arrays, typed random keys and Python numbers.
      meta: values that JSON can hold. Floats are restored exactly, also NaN and infinity; tuples
        are restored as lists.
      step: number of the checkpoint.
      keep: number of checkpoints to keep.

    Returns:
      The path of the file.

    Raises:
      ValueError: `step` or `keep` is out of range, a leaf is not a number, or `meta` is not JSON.
    """
    if keep < 1:
        raise ValueError(f"`keep` is {keep}, but it must be at least 1.")
    if step < 0:
        raise ValueError(f"`step` is {step}, but it must be at least 0.")
    header, data = checkpoint_file.encode(tree, meta)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"checkpoint-{step:012d}.rljax"
    with replacing(path) as file:
        checkpoint_file.write(file, header, data)
    _sync(directory)  # the new name must be on disk before an old file is deleted
    for old in checkpoints(directory)[keep:]:
        if old != path:  # after resuming from before a damaged file, `path` is not the newest
            old.unlink(missing_ok=True)
    for stale in directory.glob("checkpoint-*.rljax.tmp"):
        stale.unlink(missing_ok=True)
    return path


def load(path: str | Path, like: PyTree) -> tuple[PyTree, Any]:
    """Reads a checkpoint.

    Args:
      path: the file.
      like: a tree of the same structure that holds arrays or `jax.ShapeDtypeStruct`, such as
        `jax.eval_shape` returns.

    Returns:
      The tree and the metadata, bit for bit as saved. Leaves are JAX arrays on the default device,
      or NumPy arrays where `like` has NumPy arrays.

    Raises:
      DamagedCheckpoint: the file is damaged.
      ValueError: there is no such file, or its leaves differ from those of `like`.
    """
    return _load(Path(path), like, lambda _, meta: meta)


def read_meta(path: str | Path) -> Any:
    """Returns the metadata of a checkpoint after verifying the file. Raises as `load` does."""
    with checkpoint_file.opened(path) as file:
        return checkpoint_file.read_header(file, path)[0]


def checkpoints(directory: str | Path) -> list[Path]:
    """Returns the checkpoints in a directory, highest step first; [] if it does not exist."""
    directory, found = Path(directory), []
    for path in directory.iterdir() if directory.is_dir() else ():
        if match := re.fullmatch(r"checkpoint-(\d{12,})\.rljax", path.name):
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found, reverse=True)]


def restore(
    directory: str | Path, like: PyTree, parse: Callable[[Path, Any], Any] = lambda _, meta: meta
) -> tuple[PyTree, Any, Path] | None:
    """Reads the newest undamaged checkpoint; damaged ones are skipped with a warning.

    Args:
      directory: the directory of checkpoints.
      like: as in `load`.
      parse: function of the path and the metadata, called before the leaves are compared with
        those of `like`. It raises `DamagedCheckpoint` if the metadata is malformed.

    Returns:
      `(tree, parse(path, meta), path)`, or None if there are no checkpoints.

    Raises:
      ValueError: all are damaged, `parse` raises it, or the leaves differ from those of `like`.
    """
    found = checkpoints(directory)
    for path in found:
        try:
            return *_load(path, like, parse), path
        except DamagedCheckpoint as damage:
            warnings.warn(f"skipping damaged checkpoint: {damage}", stacklevel=2)
    if found:
        raise ValueError(
            f"every checkpoint in {directory} is damaged: restore one from a copy, or train again "
            "in another directory."
        )
    return None


def _load(path: Path, like: PyTree, parse: Callable[[Path, Any], Any]) -> tuple[PyTree, Any]:
    with checkpoint_file.opened(path) as file:
        meta, leaves = checkpoint_file.read_header(file, path)
        parsed = parse(path, meta)  # first, because other options often change the leaves
        return checkpoint_file.read_tree(file, path, leaves, like), parsed


def _sync(directory: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot open directories
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_config(
    path: str | Path,
    saved: Mapping[str, Any],
    config: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Compares a saved config with that of this run as JSON: tuples are lists, NaN equals NaN.

    Args:
      path: the file that holds the saved config, for the message.
      saved: the saved config.
      config: the config of this run.
      defaults: default values. An option that is not in `saved` may have its default value in
        `config`: a newer version has added it. A warning names it.

    Raises:
      ValueError: the configs differ; each different key is named.
    """
    old, new, defaults = dict(saved), _as_json(config), _as_json(defaults or {})
    differences = []
    for key in sorted(old.keys() | new.keys()):
        if key not in old and key in defaults and new[key] == defaults[key]:
            warnings.warn(
                f"this run was saved without the option `{key}`, which a newer version has added: "
                f"its default {new[key]!r} is used.",
                stacklevel=1,  # equal for the config and for the checkpoint: shown once
            )
            continue
        was = f"{key} = {old[key]!r}" if key in old else f"no {key}"
        now = repr(new[key]) if key in new else "none"
        in_both = key in old and key in new
        if not in_both or (old[key] != new[key] and repr(old[key]) != now):
            differences.append(f"{was} (now {now})")
    if differences:
        raise ValueError(
            f"the run was saved with {'; '.join(differences)}: use the saved values in {path}, or "
            "start a new run in another directory."
        )


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(config)))
