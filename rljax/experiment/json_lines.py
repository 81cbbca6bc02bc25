"""Metrics as lines of JSON, each with a checksum: `metrics.jsonl` in the directory of a run."""

import contextlib
import errno
import json
import os
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rljax.results import storage

Rows = Sequence[tuple[int, Mapping[str, Any]]]  # (environment step, {metric: number or [runs]})
CHECKED_LINE = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}')


class JsonLines:
    """One line per row: `{"global_step": 2048, "charts/SPS": [21.5, null], "crc32": "1c291ca3"}`.

    The bytes depend only on the rows; metrics are sorted by name. Floats are written as float32,
    in the shortest decimal form that `read_json_lines` reads back to the same bits. NaN is `null`
    and infinity `1e999`, which is valid JSON where `Infinity` is not. "crc32" is the CRC-32 of the
    bytes of the line before `, "crc32"`, continued from the CRC-32 of the line before. A killed
    process loses no row whose `write` has returned.
    """

    def __init__(self, path: str | Path, rows: Rows = ()):
        """Atomically replaces the file with `rows`, then appends."""
        self._checksum = 0
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.replace_file(path, b"".join(self._line(step, metrics) for step, metrics in rows))
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (until close)

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        line = self._line(step, metrics)
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)

    def close(self) -> None:
        self._file.close()

    def _line(self, step: int, metrics: Mapping[str, ArrayLike]) -> bytes:
        row = _row(step, metrics)
        self._checksum = zlib.crc32(row, self._checksum)
        return row + f', "crc32": "{self._checksum:08x}"}}\n'.encode()


def read_json_lines(path: str | Path) -> list[tuple[int, dict[str, np.ndarray]]]:
    """Returns the rows of a metrics.jsonl, floats as float32: `[(step, {name: [runs] or []})]`.

    An incomplete last line, left by a killed run, is skipped with a warning.

    Raises:
      ValueError: there is no such file, a line is damaged, or rows of a complete run are missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give the path of a metrics.jsonl file.")
    *lines, torn = path.read_bytes().split(b"\n")  # a line without its end is incomplete
    checksum, rows = 0, []
    for number, line in enumerate(lines, start=1):
        match = CHECKED_LINE.fullmatch(line)
        checksum = zlib.crc32(match[1], checksum) if match else checksum
        if match is None or int(match[2], 16) != checksum:
            raise ValueError(
                f"line {number} of {path} is damaged, or lines before it are missing: read the "
                "metrics of a complete run with rljax.load_result; resuming an incomplete run "
                "writes them anew."
            )
        row = json.loads(match[1] + b"}")
        rows.append((row.pop("global_step"), {key: _array(x) for key, x in row.items()}))
    if torn:
        warnings.warn(f"the last line of {path} is incomplete: it is skipped.", stacklevel=2)
    _check_number(path, len(rows))
    return rows


def _check_number(path: Path, number: int) -> None:
    """Raises a `ValueError` if the run is complete and has more rows."""
    expected = 0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # an incomplete run
        expected = storage.read_record(path.with_name(storage.RECORD))["config"]["num_reports"]
    if number >= expected:
        return
    raise ValueError(
        f"{path} has {number} rows, but the run has {expected} reports: read its metrics with "
        "rljax.load_result."
    )


def one_per_run(name: str, value: ArrayLike) -> np.ndarray:
    """Returns a metric as an array `[]` or `[runs]`; all but integers and bools as float32.

    Raises:
      ValueError: the metric has more axes.
    """
    values = np.asarray(value)
    if values.ndim > 1:
        raise ValueError(
            f"`{name}` has shape {values.shape}, but a metric must be one number or one per run: "
            "average it over the other axes."
        )
    with np.errstate(over="ignore"):
        return values if values.dtype.kind in "biu" else values.astype(np.float32)


def _row(step: int, metrics: Mapping[str, ArrayLike]) -> bytes:
    """Returns a line without its checksum and its end."""
    items = [f'"global_step": {int(step)}']
    for name in sorted(metrics):
        values = one_per_run(name, metrics[name])
        texts = [_text(value) for value in values.reshape(-1)]
        text = f"[{', '.join(texts)}]" if values.ndim else texts[0]
        items.append(f"{json.dumps(name)}: {text}")
    return ("{" + ", ".join(items)).encode("ascii")


def _text(value: Any) -> str:
    if value.dtype != np.float32:
        return json.dumps(value.item())
    if np.isnan(value):
        return "null"
    if np.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    # A reader converts through float64, and rounding twice may give another number.
    shortest = str(value)
    return shortest if np.float32(float(shortest)) == value else repr(float(value))


def _array(value: Any) -> np.ndarray:
    items = value if isinstance(value, list) else [value]
    is_float = any(item is None or isinstance(item, float) for item in items)
    return np.array(value, np.float32 if is_float else None)
