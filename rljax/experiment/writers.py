"""Writers of metrics: JSON lines, TensorBoard, Weights & Biases, or the user's own.

A row of metrics holds one number, or one per run, for each metric. A writer that is given by name
is made anew when a run is resumed and first writes the rows up to the checkpoint, so a resumed run
leaves the same files as an uninterrupted one. The user's own writer receives only new rows.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from rljax import config as configs
from rljax.experiment.json_lines import JsonLines, Rows, one_per_run


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


class TensorBoard:
    """TensorBoard event files: the mean over runs of each metric, and `<metric>/run_<i>` of each.

    Where a run has no value (NaN) its curve has a gap, and the mean is over the other runs. The
    config of the run is the text `config`.
    """

    def __init__(
        self, directory: str | Path, rows: Rows = (), config: Mapping[str, Any] | None = None
    ):
        module = _import_extra("tensorboard")
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
        self._run = _import_extra("wandb").init(
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
        values = one_per_run(name, metrics[name]).astype(np.float64)
        if not np.isnan(values).all():
            curves[name] = float(np.nanmean(values))
        if values.size > 1:
            runs = {f"{name}/run_{i}": float(x) for i, x in enumerate(values) if not np.isnan(x)}
            curves.update(runs)
    return curves


EXTRAS = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # writer -> package that it needs


def _import_extra(extra: str) -> Any:
    module = EXTRAS[extra]
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


def check_writers(writers: Any, run_dir: Any = "") -> tuple[str | Writer, ...]:
    """Returns the writers as a tuple of names and objects.

    Args:
      writers: a name, a `Writer`, or several of them.
      run_dir: the run directory; None if the run writes no files.

    Raises:
      ValueError: an unknown name (the nearest one is named), an object that is not a `Writer`, a
        writer of a package that cannot be imported, or one that has no directory to write to.
    """
    is_single = isinstance(writers, str) or hasattr(writers, "write")
    if not is_single and not isinstance(writers, (list, tuple)):
        raise ValueError(
            f"`writers` is {configs.shown(writers)}, but it must be a list of names "
            f"({', '.join(WRITERS)}) or of objects with `write(step, metrics)` and `close()`."
        )
    writers = (writers,) if is_single else tuple(writers)
    for writer in writers:
        if isinstance(writer, str) and writer not in WRITERS:
            raise ValueError(
                f"there is no writer {configs.shown(writer)}: {configs.suggestion(writer, WRITERS)}"
            )
        if isinstance(writer, str) and writer in EXTRAS:
            if run_dir is None:
                raise ValueError(
                    f"`writers` contains {writer!r}, which writes to the run directory: set "
                    "`run_dir`."
                )
            _import_extra(writer)
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
