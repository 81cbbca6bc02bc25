"""The curves of a run on disk: `curves.npz` for the numbers, `result.json` for the rest.

No pickle is written or read, the same content gives the same bytes, and the record holds the
SHA-256 of the numbers, so that neither damage nor two runs mixed in one directory go unseen.
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
    """Writes both files into `directory`, which is made where it does not exist.

    Raises:
      ValueError: an array is not of plain numbers, or the record does not fit into JSON.
    """
    directory = Path(directory)
    plain = {name: np.asarray(arrays[name]) for name in sorted(arrays)}
    for name, values in plain.items():
        if values.dtype.kind not in "biuf":  # anything else is pickled, or read back as void
            raise ValueError(f"`{name}` is of {values.dtype}: make it an array of plain numbers.")
    buffer = io.BytesIO()
    np.savez(buffer, **plain)  # type: ignore[arg-type]  # pyright takes a name for `allow_pickle`
    data = buffer.getvalue()
    text = to_json({"format": FORMAT, **record, "sha256": hashlib.sha256(data).hexdigest()}, 2)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in ((CURVES, data), (RECORD, f"{text}\n".encode())):
        temporary = directory / f"{name}.tmp"  # a reader never sees half a file
        temporary.write_bytes(content)
        os.replace(temporary, directory / name)
    return directory


def read(
    directory: str | Path, names: Iterable[str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write` wrote: the `names` of the record, and the arrays bit for bit.

    Raises:
      ValueError: a file is missing or damaged, or they are of two different runs.
    """
    curves, record = Path(directory) / CURVES, Path(directory) / RECORD
    for path in (record, curves):
        if not path.is_file():
            raise ValueError(f"there is no file {path}: give the directory of a run that ended.")
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        version, digest = content["format"], content["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{record} is damaged ({error!r}): save the run again.") from None
    if version != FORMAT:
        raise ValueError(f"{record} is of format {version}, not {FORMAT}: update rljax.")
    if missing := [name for name in names if name not in content]:
        raise ValueError(f"{record} is damaged (no `{missing[0]}` in it): save the run again.")
    data = curves.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(
            f"{curves} is damaged or of another run (its SHA-256 is not the one in {RECORD}): "
            "save the run again."
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: content[name] for name in names}, {name: arrays[name] for name in arrays}


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text, with the arrays and numbers of numpy and JAX as lists and plain numbers.

    Raises:
      ValueError: something has no form in JSON.
    """

    def plain(x):
        if hasattr(x, "tolist"):
            return x.tolist()
        raise ValueError(f"{x!r} has no form in JSON: put numbers, texts and lists in a config.")

    return json.dumps(value, indent=indent, ensure_ascii=False, default=plain)
