"""Writers of metrics: JSON lines, TensorBoard, Weights & Biases, Trackio, or the user's own.

A row of metrics holds one number, or one per run, for each metric. A writer of rljax is opened anew
when a run is resumed and first writes the rows up to the checkpoint, so a resumed run leaves the
same rows as an uninterrupted one. The user's own writer receives only new rows.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import ArrayLike

from rljax import config as configs
from rljax.experiment.json_lines import JsonLines, Rows
from rljax.experiment.writers_service import Service
from rljax.experiment.writers_tensorboard import TensorBoard
from rljax.experiment.writers_wandb import Trackio, WandB

if TYPE_CHECKING:
    from rljax.experiment.plan import Plan

__all__ = ["TensorBoard", "Trackio", "WandB", "Writer"]


class Writer(Protocol):
    """A destination of metrics: any object with `write`, passed as `writers=[...]`.

    These methods are optional:

    - `open(directory, rows, plan)`, called before the first row: the run directory or None, the
      rows `(step, metrics)` before the checkpoint that the run is resumed from, and the
      `rljax.experiment.plan.Plan` with its `config`, `sweep`, `num_seeds` and `seed`.
    - `close()`, called once, after the last row or after an error.

    Example:
      >>> class Printer:
      ...     def write(self, step, metrics):
      ...         print(step, metrics["charts/episodic_return"].shape)
      >>> import rljax
      >>> run = rljax.train(
      ...     "q_learning", "rljax/Maze", num_seeds=2, num_reports=1, total_timesteps=400,
      ...     eval_episodes=0, progress=False, writers=[Printer()],
      ... )
      400 (2,)
    """

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        """Writes one row of metrics.

        Args:
          step: environment steps taken by each run.
          metrics: arrays `[runs]` by name, float32; NaN where there was nothing to average. In a
            sweep, settings vary slowest and seeds fastest.
        """
        ...


# "jsonl" is the file of the run directory, the others are opened with `open`
WRITERS: dict[str, Callable[..., Any]] = {
    "jsonl": lambda directory, rows: JsonLines(directory / "metrics.jsonl", rows),
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
}


def check_writers(writers: Any, run_dir: Any = "") -> tuple[str | Writer, ...]:
    """Returns the writers as a tuple of names and objects.

    Args:
      writers: a name, a `Writer`, or several of them.
      run_dir: the run directory; None if the run writes no files.

    Raises:
      ValueError: an unknown name (the nearest one is named), an object that is not a `Writer`, a
        wrong option, a writer of a package that cannot be imported, or one that has no directory to
        write to.
    """
    is_single = isinstance(writers, str) or hasattr(writers, "write")
    if not is_single and not isinstance(writers, (list, tuple)):
        raise ValueError(
            f"`writers` is {configs.shown(writers)}, but it must be a list of names "
            f"({', '.join(WRITERS)}) or of objects with `write(step, metrics)`."
        )
    writers = (writers,) if is_single else tuple(writers)
    for writer in writers:
        if isinstance(writer, str) and writer not in WRITERS:
            raise ValueError(
                f"there is no writer {configs.shown(writer)}: {configs.suggestion(writer, WRITERS)}"
            )
        if not isinstance(writer, str) and (
            isinstance(writer, type) or not callable(getattr(writer, "write", None))
        ):
            raise ValueError(
                f"`writers` contains {writer!r}, but a writer must be a name "
                f"({', '.join(WRITERS)}) or an object with `write(step, metrics)`."
            )
        made = _made(writer)
        if isinstance(made, TensorBoard) and run_dir is None:
            raise ValueError(
                "`writers` contains 'tensorboard', which writes to the run directory: set "
                "`run_dir`."
            )
        if isinstance(made, (TensorBoard, Service)):
            made.check()
    return writers


def check_size(writers: Sequence[str | Writer], plan: "Plan") -> None:
    """Raises a `ValueError` if a writer would open too many files or runs of a service."""
    for made in map(_made, writers):
        if isinstance(made, (TensorBoard, Service)):
            made.check_size(plan)


@contextlib.contextmanager
def open_writers(
    writers: Sequence[str | Writer], directory: Path | None, rows: Rows, plan: "Plan"
) -> Iterator[list[Writer]]:
    """Opens the writers of a run, and closes them at the end of the context.

    Args:
      writers: names and objects, as `check_writers` returns them.
      directory: the run directory; without one nothing is written by "jsonl".
      rows: rows up to the checkpoint that the run is resumed from.
      plan: the plan of the run.
    """
    with contextlib.ExitStack() as on_exit:
        opened = []
        for writer in writers:
            if writer == "jsonl" and directory is None:
                continue
            made = WRITERS["jsonl"](directory, rows) if writer == "jsonl" else _made(writer)
            if hasattr(made, "close"):
                on_exit.callback(made.close)
            if hasattr(made, "open"):
                made.open(directory, rows, plan)
            opened.append(made)
        yield opened


def writer_record(writer: str | Writer) -> Any:
    """Returns a writer as a plain value: its name, `{name: options}`, or the name of its class."""
    if isinstance(writer, str):
        return writer
    if isinstance(writer, (TensorBoard, Service)) and _is_plain(writer.options):
        return {writer.extra: writer.options} if writer.options else writer.extra
    return type(writer).__name__


def writer_from_record(value: Any) -> str | Writer | None:
    """Returns the writer of a `writer_record`; None for one of the user's own."""
    if isinstance(value, dict):
        ((name, options),) = value.items()
        return WRITERS[name](**options) if name in WRITERS else None
    return value if value in WRITERS else None


def _made(writer: str | Writer) -> Any:
    """Returns the writer of a name; "jsonl" and objects remain."""
    return WRITERS[writer]() if isinstance(writer, str) and writer != "jsonl" else writer


def _is_plain(options: Mapping[str, Any]) -> bool:
    try:
        json.dumps(dict(options))
    except (TypeError, ValueError):
        return False
    return True
