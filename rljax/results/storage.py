"""The files of a result: `curves.npz` for the arrays, `result.json` for everything else.

No pickle is written or read, and equal content gives equal bytes. `result.json` holds the SHA-256
of the arrays, which detects damage and files from different runs, and ends with its own digest.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

CURVES, RECORD = "curves.npz", "result.json"
FORMAT = 2
DIGEST = b',\n  "digest": "'  # before the SHA-256 of all bytes before it


def write(directory: str | Path, record: Mapping[str, Any], arrays: Mapping[str, Any]) -> Path:
    """Writes both files.

    Args:
      directory: it is created if it does not exist.
      record: values for `result.json`.
      arrays: arrays for `curves.npz`, by name.

    Returns:
      The directory.

    Raises:
      ValueError: an array does not hold plain numbers, or the record is not JSON.
    """
    directory = Path(directory)
    plain = {name: np.asarray(arrays[name]) for name in sorted(arrays)}
    for name, values in plain.items():
        if values.dtype.kind not in "biuf":  # NumPy pickles other dtypes, or loads them as void
            raise ValueError(
                f"`{name}` has dtype {values.dtype}, but only bools, integers and floats can be "
                "saved: convert it."
            )
    buffer = io.BytesIO()
    np.savez(buffer, **plain)  # type: ignore[arg-type]  # pyright expects `allow_pickle`
    data = buffer.getvalue()
    record = {"format": FORMAT, **record, "sha256": hashlib.sha256(data).hexdigest()}
    content = with_digest(record)
    directory.mkdir(parents=True, exist_ok=True)
    replace_file(directory / CURVES, data)
    replace_file(directory / RECORD, content)
    return directory


def read(
    directory: str | Path, names: Iterable[str], optional: Iterable[str] = ()
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads both files.

    Args:
      directory: a run directory.
      names: names of the values in `result.json` to return.
      optional: names of values that an older version may not have written; they may be missing.

    Returns:
      The values by name, and the arrays by name, bit for bit.

    Raises:
      ValueError: a file is missing or damaged, or the files are from different runs.
    """
    curves, path = Path(directory) / CURVES, Path(directory) / RECORD
    for file in (path, curves):
        if not file.is_file():
            raise ValueError(f"there is no file {file}: give the directory of a complete run.")
    record = read_record(path)
    if (version := record.get("format")) != FORMAT:
        raise ValueError(
            f"{path} has format {version}, but this version of rljax reads format {FORMAT}: use "
            "the version that wrote it."
        )
    names = list(names)
    if missing := [name for name in (*names, "sha256") if name not in record]:
        raise ValueError(f"{path} is damaged (no `{missing[0]}` in it): save the run again.")
    data = curves.read_bytes()
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise ValueError(
            f"{curves} is damaged or from another run (its SHA-256 differs from that in {RECORD}): "
            "save the run again."
        )
    names += [name for name in optional if name in record]
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: record[name] for name in names}, {name: arrays[name] for name in arrays}


def with_digest(record: Mapping[str, Any]) -> bytes:
    """Returns a record as a JSON file whose last value, "digest", is the SHA-256 of the rest.

    Raises:
      ValueError: a value cannot be written as JSON.
    """
    head = to_json(record, 2).removesuffix("\n}").encode()
    return head + DIGEST + hashlib.sha256(head).hexdigest().encode() + b'"\n}\n'


def read_record(path: str | Path) -> dict[str, Any]:
    """Reads a file that `with_digest` made, and verifies it.

    Raises:
      ValueError: the file is damaged.
    """
    data = Path(path).read_bytes()
    head, _, tail = data.rpartition(DIGEST)
    if tail != hashlib.sha256(head).hexdigest().encode() + b'"\n}\n':
        raise ValueError(
            f"{path} is damaged (its content does not match its digest): resume the run, or save "
            "it again."
        )
    try:
        record = json.loads(data)
        del record["digest"]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON record ({error}): save the run again.") from None
    return record


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file atomically: after a crash it has the old content or the new one."""
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[io.BufferedWriter]:
    """Opens a temporary file for writing, which replaces `path` at the end of the context.

    After a crash, or an error in the context, `path` has its old content.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # also an interrupt, which must not leave an incomplete file
        temporary.unlink(missing_ok=True)
        raise


def to_json(value: Any, indent: int | None = None) -> str:
    """Returns JSON text, with arrays and numbers of NumPy and JAX as lists and plain numbers.

    Raises:
      ValueError: a value cannot be written as JSON.
    """

    def plain(x):
        if hasattr(x, "tolist"):
            return x.tolist()
        raise ValueError(f"{x!r} is not JSON: use only numbers, strings and lists in a config.")

    return json.dumps(value, indent=indent, ensure_ascii=False, default=plain)
