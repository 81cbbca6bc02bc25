"""The files of a result: `curves.npz` for the arrays, `result.json` for everything else.

No pickle is written or read, and equal content gives equal bytes. `result.json` holds the SHA-256
of the arrays, which detects damage and files from different runs.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

CURVES, RECORD = "curves.npz", "result.json"
FORMAT = 1


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
    text = to_json({"format": FORMAT, **record, "sha256": hashlib.sha256(data).hexdigest()}, 2)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in ((CURVES, data), (RECORD, f"{text}\n".encode())):
        temporary = directory / f"{name}.tmp"  # written atomically
        temporary.write_bytes(content)
        os.replace(temporary, directory / name)
    return directory


def read(
    directory: str | Path, names: Iterable[str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads both files.

    Args:
      directory: a run directory.
      names: names of the values in `result.json` to return.

    Returns:
      The values by name, and the arrays by name, bit for bit.

    Raises:
      ValueError: a file is missing or damaged, or the files are from different runs.
    """
    curves, record = Path(directory) / CURVES, Path(directory) / RECORD
    for path in (record, curves):
        if not path.is_file():
            raise ValueError(f"there is no file {path}: give the directory of a complete run.")
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        version, digest = content["format"], content["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{record} is damaged ({error!r}): save the run again.") from None
    if version != FORMAT:
        raise ValueError(f"{record} has format {version}, not {FORMAT}: update rljax.")
    if missing := [name for name in names if name not in content]:
        raise ValueError(f"{record} is damaged (no `{missing[0]}` in it): save the run again.")
    data = curves.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(
            f"{curves} is damaged or from another run (its SHA-256 differs from that in {RECORD}): "
            "save the run again."
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: content[name] for name in names}, {name: arrays[name] for name in arrays}


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
