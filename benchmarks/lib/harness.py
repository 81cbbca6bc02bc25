"""What the benchmarks share: processes that answer in JSON, virtual environments, tables."""

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BENCHMARKS = Path(__file__).resolve().parent.parent
REPOSITORY = BENCHMARKS.parent
LIB = BENCHMARKS / "lib"
PEERS = BENCHMARKS / "peers"


class Failed(Exception):
    """A timed process failed; the message says why in one line."""


def run(command: Sequence[Any], timeout: float, cwd: Path | None = None) -> tuple[str, float]:
    """Runs a command to its end. Returns its standard output and its wall seconds.

    The checkout that contains this file can be imported, installed or not, and it compiles without
    a cache.

    Raises:
      Failed: the command took more than `timeout` seconds, or ended with an error.
    """
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=timeout,
            env=os.environ | {"PYTHONPATH": path, "RLJAX_CACHE": "off"}, cwd=cwd,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"no answer within {timeout:.0f} s") from None
    seconds = time.perf_counter() - start
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Failed(lines[-1] if lines else f"exit code {done.returncode}")
    return done.stdout, seconds


def ask(command: Sequence[Any], timeout: float, **options: Any) -> dict[str, Any]:
    """Runs a timed program with `--option value` arguments. Returns the JSON of its last line."""
    arguments = [
        part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)
    ]
    output, _ = run([*command, *arguments], timeout)
    return json.loads(output.strip().splitlines()[-1])


def environment(name: str, root: Path, jax_extra: str, pip_options: Sequence[str]) -> Path:
    """Returns the interpreter of a virtual environment for `peers/requirements/<name>.txt`.

    The environment is made if it does not exist or was made for other requirements.

    Args:
      name: name of the other library.
      root: directory of all virtual environments.
      jax_extra: such as "cuda12", for a JAX that computes on the same device as rljax.
      pip_options: further arguments of `pip install`.

    Raises:
      Failed: pip did not find, or could not install, the requirements.
    """
    text = (PEERS / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    if jax_extra:
        text = text.replace("\njax==", f"\njax[{jax_extra}]==")
    directory = (root / name).resolve()
    python = directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed = directory / "requirements.txt"  # written last, after a successful installation
    if installed.is_file() and installed.read_text(encoding="utf-8") == text:
        return python
    print(f"installing {name} into {directory}", file=sys.stderr, flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, with_pip=True)
    wanted = directory / "wanted.txt"
    wanted.write_text(text, encoding="utf-8")
    run([python, "-m", "pip", "install", "-q", "-r", wanted, *pip_options], timeout=3600)
    wanted.replace(installed)
    return python


def machine(measured: Mapping[str, Any]) -> str:
    """Returns one line that describes the machine, from the answer of a timed program."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f" · load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = measured["versions"]
    device = f"{measured['num_devices']} x {measured['device']} ({measured['backend']})"
    return (
        f"{time.strftime('%Y-%m-%d')} · JAX on {device} · {cores} cores, {measured['processor']} · "
        f"jax {versions['jax']} · Python {versions['python']}{load}"
    )


def rate(steps_per_second: float) -> str:
    """Returns three significant digits and a suffix: 115k, 2.31M."""
    for scale, suffix in ((1e6, "M"), (1e3, "k")):
        if steps_per_second >= 0.9995 * scale:
            return f"{_three_digits(steps_per_second / scale)}{suffix}"
    return _three_digits(steps_per_second)


def _three_digits(x: float) -> str:
    """Returns three significant digits, without an exponent."""
    digits = max(0, 2 - int(np.floor(np.log10(max(abs(x), 1e-9)))))
    return f"{x:.{min(digits, 2)}f}"


def span(values: Sequence[float], show: Any = rate) -> list[str]:
    """Returns two cells: the median, and the minimum and maximum."""
    return [show(float(np.median(values))), f"{show(min(values))} - {show(max(values))}"]


def seconds(value: float | None) -> str:
    """Returns seconds with two or three significant digits, or a dash for None."""
    return "-" if value is None else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def names(text: str) -> tuple[str, ...]:
    """Returns the items of a comma-separated command-line option."""
    return tuple(filter(None, text.split(",")))


class Table:
    """Aligned rows under headings; columns whose heading starts with `>` align to the right."""

    def __init__(self, title: str, caption: str, *headings: str):
        """Makes an empty table; `caption` explains the columns, `remarks` are printed below."""
        self.title, self.caption, self.rows = title, caption, []
        self.remarks: list[str] = []
        self._headings = [heading.removeprefix(">") for heading in headings]
        self._right = [heading.startswith(">") for heading in headings]

    def add(self, *cells: str) -> None:
        """Adds a row, and prints it to standard error as a sign of progress."""
        self.rows.append([*cells, *[""] * (len(self._headings) - len(cells))])
        print("  ".join(cells), file=sys.stderr, flush=True)

    def text(self) -> str:
        """Returns the table as text for a terminal."""
        lines = [self._line(row, "  ").rstrip() for row in (self._headings, *self.rows)]
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([self.title, self.caption, "", *lines, "", *self.remarks])

    def markdown(self) -> str:
        """Returns the table as markdown for a file."""
        rule = [
            "-" * (width - 1) + ":" if right else "-" * width
            for width, right in zip(self._widths(), self._right, strict=True)
        ]
        rows = [f"| {self._line(row, ' | ')} |" for row in (self._headings, rule, *self.rows)]
        remarks = [f"- {remark}" for remark in self.remarks]
        return "\n".join([f"## {self.title}", "", self.caption, "", *rows, "", *remarks, ""])

    def _widths(self) -> list[int]:
        columns = zip(self._headings, *self.rows, strict=True)
        return [max(3, *map(len, column)) for column in columns]

    def _line(self, row: Sequence[str], between: str) -> str:
        cells = zip(row, self._widths(), self._right, strict=True)
        return between.join(c.rjust(w) if right else c.ljust(w) for c, w, right in cells)


def write(path: str | Path | None, title: str, line: str, tables: Sequence[Table]) -> None:
    """Writes all tables to a markdown file, if a path is given."""
    if path is None:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    parts = [f"# {title}", "", line, "", *(table.markdown() for table in tables)]
    Path(path).write_text("\n".join(parts), encoding="utf-8")
