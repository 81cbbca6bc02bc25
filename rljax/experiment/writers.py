"""What a run tells while it goes: writers of metrics; `Progress` is the live bar beside them.

A writer has `write(step, metrics)` and `close()`; a metric is one number, or one per run. Every
writer is made with the `rows` reported before, and writes them first: so a resumed run leaves
what an unbroken one would have left, and nothing stands there twice.
"""

import difflib
import importlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from rljax.experiment.progress import Progress as Progress

Rows = Iterable[tuple[int, Mapping[str, ArrayLike]]]


class Writer(Protocol):
    """Where metrics go."""

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        """Reports the metrics (numbers, or arrays `[runs]`) of the environment step `step`."""

    def close(self) -> None:
        """Finishes the files; nothing is written after."""


class JsonLines:
    """One line of JSON a report: `{"global_step": 2048, "charts/episodic_return": [21.5, null]}`.

    The bytes depend on the rows alone: metrics stand in the order of their names. Floats are
    written as float32, by the shortest text that `read_json_lines` reads to the same bits. NaN is
    `null` and infinity `1e999`, which is valid JSON where `Infinity` is not. A killed process
    loses no line that `write` had returned from.
    """

    def __init__(self, path: str | Path, rows: Rows = ()):
        """Replaces the file, at one stroke, by `rows`; writing goes on behind them."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        with open(temporary, "w", encoding="ascii", newline="\n") as file:
            file.writelines(_line(step, metrics) for step, metrics in rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        self._file = open(path, "a", encoding="ascii", newline="\n")  # noqa: SIM115 (until close)

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        self._file.write(_line(step, metrics))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_json_lines(path: str | Path) -> list[tuple[int, dict[str, np.ndarray]]]:
    """The rows of a file of `JsonLines`, floats as float32: `[(step, {name: [runs] or []})]`.

    A last line that a killed run left unfinished is passed over.

    Raises:
      ValueError: there is no such file, or another line of it is not a report.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give the path of a metrics.jsonl.")
    lines = path.read_bytes().splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append((row.pop("global_step"), {key: _array(x) for key, x in row.items()}))
        except (ValueError, TypeError, KeyError, AttributeError):
            if number < len(lines):
                raise ValueError(
                    f"line {number} of {path} is not a report: remove it to read the others."
                ) from None
    return rows


def _line(step: int, metrics: Mapping[str, ArrayLike]) -> str:
    items = [f'"global_step": {int(step)}']
    for name in sorted(metrics):
        values = _one_per_run(name, metrics[name])
        texts = [_text(value) for value in values.reshape(-1)]
        text = f"[{', '.join(texts)}]" if values.ndim else texts[0]
        items.append(f"{json.dumps(name)}: {text}")
    return "{" + ", ".join(items) + "}\n"


def _one_per_run(name: str, value: ArrayLike) -> np.ndarray:
    """A metric as an array `[]` or `[runs]`, of float32 unless it counts or is true or false."""
    values = np.asarray(value)
    if values.ndim > 1:
        raise ValueError(
            f"`{name}` has the shape {values.shape}, but a metric is one number or one per run: "
            "average it over the other axes."
        )
    with np.errstate(over="ignore"):
        return values if values.dtype.kind in "biu" else values.astype(np.float32)


def _text(value: Any) -> str:
    if value.dtype != np.float32:
        return json.dumps(value.item())
    if np.isnan(value):
        return "null"
    if np.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    # A reader goes through float64, and rounding twice is not always rounding once.
    shortest = str(value)
    return shortest if np.float32(float(shortest)) == value else repr(float(value))


def _array(value: Any) -> np.ndarray:
    items = value if isinstance(value, list) else [value]
    is_float = any(item is None or isinstance(item, float) for item in items)
    return np.array(value, np.float32 if is_float else None)


class TensorBoard:
    """Event files: of every metric the mean over runs, and `<metric>/run_<i>` for each run.

    Where a run has no value (NaN) its curve has a gap, and the mean is over the others.
    """

    def __init__(self, directory: str | Path, rows: Rows = ()):
        module = _extra("tensorboardX", "tensorboard")
        # TensorBoard hides what earlier files in the folder hold from step 0 on.
        self._writer = module.SummaryWriter(str(directory), purge_step=0)
        for step, metrics in rows:
            self.write(step, metrics)

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        for name, value in _curves(metrics).items():
            self._writer.add_scalar(name, value, int(step))

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases, offline unless the variable WANDB_MODE says otherwise.

    Curves are named as `TensorBoard` names them; `settings` go to `wandb.init`.
    """

    def __init__(self, directory: str | Path, rows: Rows = (), **settings: Any):
        mode = os.environ.get("WANDB_MODE") or "offline"
        settings = {"project": "rljax", "name": Path(directory).name, "mode": mode, **settings}
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._run = _extra("wandb", "wandb").init(dir=str(directory), **settings)
        for step, metrics in rows:
            self.write(step, metrics)

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        self._run.log({"global_step": int(step), **_curves(metrics)}, step=int(step))

    def close(self) -> None:
        self._run.finish()


def _curves(metrics: Mapping[str, ArrayLike]) -> dict[str, float]:
    curves = {}
    for name in sorted(metrics):
        values = _one_per_run(name, metrics[name]).astype(np.float64)
        if not np.isnan(values).all():
            curves[name] = float(np.nanmean(values))
        if values.size > 1:
            runs = {f"{name}/run_{i}": float(x) for i, x in enumerate(values) if not np.isnan(x)}
            curves.update(runs)
    return curves


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the writer `{extra}` needs {module}, which does not import ({error}): "
            f'pip install "rljax-research[{extra}]".'
        ) from None


WRITERS: dict[str, Callable[[Path, Rows], Writer]] = {
    "jsonl": lambda directory, rows: JsonLines(directory / "metrics.jsonl", rows),
    "tensorboard": lambda directory, rows: TensorBoard(directory / "tensorboard", rows),
    "wandb": WandB,
}


def check_writers(names: Iterable[str]) -> None:
    """Raises a ValueError for a name that is not in `WRITERS`; the nearest one is named."""
    for name in names:
        if name not in WRITERS:
            near = difflib.get_close_matches(name, WRITERS, n=1, cutoff=0.4)
            cure = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(WRITERS)}."
            raise ValueError(f"there is no writer `{name}`: {cure}")


def writer(name: str, directory: str | Path, rows: Rows = ()) -> Writer:
    """The writer of a name in `WRITERS`, for the run whose folder is `directory`.

    Raises:
      ValueError: an unknown name (the nearest is named), or a package that is not installed.
    """
    check_writers([name])
    return WRITERS[name](Path(directory), rows)
