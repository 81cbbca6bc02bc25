"""Writers of metrics: JSON lines, TensorBoard, Weights & Biases, or the user's own.

A row of metrics holds one number, or one per run, for each metric. A writer that is given by name
is made anew when a run is resumed and first writes the rows up to the checkpoint, so a resumed run
leaves the same files as an uninterrupted one. The user's own writer receives only new rows.
"""

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from rljax import config as configs

Rows = Sequence[tuple[int, Mapping[str, Any]]]  # (environment step, {metric: number or [runs]})


class Writer(Protocol):
    """A destination of metrics: any object with these two methods, passed as `writers=[...]`.

    Example:
      >>> class Printer:
      ...     def write(self, step, metrics):
      ...         print(step, metrics["charts/episodic_return"].shape)
      ...     def close(self):
      ...         print("closed")
      >>> import rljax
      >>> run = rljax.train(
      ...     "q_learning", "rljax/Maze", num_seeds=2, num_reports=1, total_timesteps=400,
      ...     eval_episodes=0, progress=False, writers=[Printer()],
      ... )
      400 (2,)
      closed
    """

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        """Writes one row of metrics.

        Args:
          step: environment steps taken by each run.
          metrics: arrays `[runs]` by name, float32; NaN where there was nothing to average. In a
            sweep, settings vary slowest and seeds fastest.
        """
        ...

    def close(self) -> None:
        """Closes the writer. Called once, after the last row or after an error."""
        ...


class JsonLines:
    """One line of JSON per row: `{"global_step": 2048, "charts/episodic_return": [21.5, null]}`.

    The bytes depend only on the rows; metrics are sorted by name. Floats are written as float32,
    in the shortest decimal form that `read_json_lines` reads back to the same bits. NaN is `null`
    and infinity `1e999`, which is valid JSON where `Infinity` is not. Lines are flushed: a killed
    process loses no row whose `write` has returned.
    """

    def __init__(self, path: str | Path, rows: Rows = ()):
        """Atomically replaces the file with `rows`, then appends."""
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
    """Returns the rows of a metrics.jsonl, floats as float32: `[(step, {name: [runs] or []})]`.

    An incomplete last line, left by a killed run, is skipped.

    Raises:
      ValueError: there is no such file, or a line before the last one is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give the path of a metrics.jsonl file.")
    lines = path.read_bytes().splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append((row.pop("global_step"), {key: _array(x) for key, x in row.items()}))
        except (ValueError, TypeError, KeyError, AttributeError):
            if number < len(lines):
                raise ValueError(
                    f"line {number} of {path} is not a row of metrics: remove it to read the rest."
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
    """Returns a metric as an array `[]` or `[runs]`; all but integers and bools as float32."""
    values = np.asarray(value)
    if values.ndim > 1:
        raise ValueError(
            f"`{name}` has shape {values.shape}, but a metric must be one number or one per run: "
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
    # A reader converts through float64, and rounding twice may give another number.
    shortest = str(value)
    return shortest if np.float32(float(shortest)) == value else repr(float(value))


def _array(value: Any) -> np.ndarray:
    items = value if isinstance(value, list) else [value]
    is_float = any(item is None or isinstance(item, float) for item in items)
    return np.array(value, np.float32 if is_float else None)


class TensorBoard:
    """TensorBoard event files: the mean over runs of each metric, and `<metric>/run_<i>` of each.

    Where a run has no value (NaN) its curve has a gap, and the mean is over the other runs. The
    config of the run is the text `config`.
    """

    def __init__(
        self, directory: str | Path, rows: Rows = (), config: Mapping[str, Any] | None = None
    ):
        module = _import_extra("tensorboardX", "tensorboard")
        # TensorBoard then hides the rows of earlier event files in the directory.
        self._writer = module.SummaryWriter(str(directory), purge_step=0)
        if config:
            self._writer.add_text("config", f"```\n{configs.dump(config)}```", 0)
        for step, metrics in rows:
            self.write(step, metrics)

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        for name, value in _curves(metrics).items():
            self._writer.add_scalar(name, value, int(step))

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases; offline, unless the environment variable WANDB_MODE is set.

    The curves have the names that `TensorBoard` gives them, the config of the run is the config of
    the W&B run, and `settings` are passed to `wandb.init`.
    """

    def __init__(
        self, directory: str | Path, rows: Rows = (), config: Mapping[str, Any] | None = None,
        **settings: Any,
    ):  # fmt: skip
        mode = os.environ.get("WANDB_MODE") or "offline"
        settings = {"project": "rljax", "name": Path(directory).name, "mode": mode, **settings}
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._run = _import_extra("wandb", "wandb").init(
            dir=str(directory), config=dict(config or {}), **settings
        )
        for step, metrics in rows:
            self.write(step, metrics)

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        self._run.log({"global_step": int(step), **_curves(metrics)}, step=int(step))

    def close(self) -> None:
        self._run.finish()


def _curves(metrics: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Returns the mean over runs of each metric, and the value of each run."""
    curves = {}
    for name in sorted(metrics):
        values = _one_per_run(name, metrics[name]).astype(np.float64)
        if not np.isnan(values).all():
            curves[name] = float(np.nanmean(values))
        if values.size > 1:
            runs = {f"{name}/run_{i}": float(x) for i, x in enumerate(values) if not np.isnan(x)}
            curves.update(runs)
    return curves


def _import_extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the writer `{extra}` needs the package {module}, which cannot be imported ({error}): "
            f'pip install "rljax-research[{extra}]".'
        ) from None


WRITERS: dict[str, Callable[[Path, Rows, Mapping[str, Any]], Writer]] = {
    "jsonl": lambda directory, rows, config: JsonLines(directory / "metrics.jsonl", rows),
    "tensorboard": lambda directory, *rest: TensorBoard(directory / "tensorboard", *rest),
    "wandb": WandB,
}


def check_writers(writers: Any) -> tuple[str | Writer, ...]:
    """Returns the writers as a tuple of names and objects.

    Raises:
      ValueError: an unknown name (the nearest one is named), or an object that is not a `Writer`.
    """
    is_single = isinstance(writers, str) or hasattr(writers, "write")
    writers = (writers,) if is_single else tuple(writers)
    for writer in writers:
        if isinstance(writer, str) and writer not in WRITERS:
            raise ValueError(
                f"there is no writer `{writer}`: {configs.suggestion(writer, WRITERS)}"
            )
        methods = callable(getattr(writer, "write", None)), callable(getattr(writer, "close", None))
        if not isinstance(writer, str) and (isinstance(writer, type) or not all(methods)):
            raise ValueError(
                f"`writers` contains {writer!r}, but a writer must be a name "
                f"({', '.join(WRITERS)}) or an object with `write(step, metrics)` and `close()`."
            )
    return writers


def open_writers(
    writers: Sequence[str | Writer], directory: Path | None, rows: Rows, config: Mapping[str, Any]
) -> list[Writer]:
    """Returns the writers of a run, those given by name with the rows so far.

    Args:
      writers: names and objects, as `check_writers` returns them.
      directory: the run directory; None skips the writers given by name, which write files.
      rows: rows up to the checkpoint that the run is resumed from.
      config: plain values of config.toml.

    Raises:
      ValueError: a package is not installed.
    """
    opened: list[Writer] = []
    for writer in writers:
        if not isinstance(writer, str):
            opened.append(writer)
        elif directory is not None:
            opened.append(WRITERS[writer](directory, rows, config))
    return opened
