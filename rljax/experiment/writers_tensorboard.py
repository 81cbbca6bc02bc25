"""TensorBoard event files, a directory for each curve, and the table of hyperparameters."""

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from rljax import config as configs
from rljax.experiment.json_lines import Rows
from rljax.experiment.writers_curves import (
    hyperparameters,
    import_extra,
    means,
    runs_of_settings,
    setting_labels,
)

if TYPE_CHECKING:
    from rljax.experiment.plan import Plan

MAX_CURVES = 256  # each has an open file and a thread
FLUSH_SECONDS = 10


class TensorBoard:
    """TensorBoard event files in `tensorboard/` of the run directory.

    Each seed has the directory `seed_0`, `seed_1`, ..., and with several seeds their mean has the
    directory `mean`. In a sweep they are in a directory of the setting, `learning_rate=0.001/mean`.
    Where a run has no value (NaN) its curve has a gap, and the mean is over the other runs.

    The tab HPARAMS lists the runs with their hyperparameters and latest metrics; the runs of a
    setting are one group.
    """

    extra = "tensorboard"
    options: Mapping[str, Any] = MappingProxyType({})  # it has none

    def __init__(self) -> None:
        self._curves: list[tuple[Any, Any]] = []  # writers, and the runs that each is the mean of

    def check(self) -> None:
        """Raises a `ValueError` if the package is missing."""
        import_extra(self.extra, "tensorboardX")

    def check_size(self, plan: "Plan") -> None:
        """Raises a `ValueError` if the sweep has too many settings for a directory of each."""
        if (number := len(runs_of_settings(plan))) > MAX_CURVES:
            raise ValueError(
                f"the writer `tensorboard` makes a directory for each setting, at most "
                f"{MAX_CURVES}, but the sweep has {number:,}: leave it out, and read metrics.jsonl."
            )

    def open(self, directory: Path, rows: Rows, plan: "Plan") -> None:
        """Opens the event files, and hides the rows of earlier ones in TensorBoard."""
        summary_writer = import_extra(self.extra, "tensorboardX").SummaryWriter
        self._curves = []
        for label, runs in zip(setting_labels(plan), runs_of_settings(plan), strict=True):
            names = {"mean": runs} if len(runs) > 1 else {}
            if plan.num_runs <= MAX_CURVES or not names:
                names |= {f"seed_{i}": runs[i : i + 1] for i in range(len(runs))}
            for name, shown in names.items():
                path = directory / "tensorboard" / label / name
                writer = summary_writer(str(path), purge_step=0, flush_secs=FLUSH_SECONDS)
                self._curves.append((writer, shown))
                if name != "mean" or len(names) == 1:
                    session = _session(f"{directory}/{label}", hyperparameters(plan, runs))
                    writer.file_writer.add_summary(session)
        text = f"```\n{configs.dump(plan.record())}```"
        self._curves[0][0].add_text("config", text, 0)
        for step, metrics in rows:
            self.write(step, metrics)

    def write(self, step: int, metrics: Mapping[str, ArrayLike]) -> None:
        """Adds a point to the curve of each metric."""
        for writer, runs in self._curves:
            for name, value in means(metrics, runs).items():
                writer.add_scalar(name, value, int(step))

    def close(self) -> None:
        """Closes the event files."""
        for writer, _ in self._curves:
            writer.close()


def _session(group: str, values: Mapping[str, Any]) -> Any:
    """Returns the summary that makes a directory a row of HPARAMS.

    Without a summary of the whole experiment TensorBoard lists the hyperparameters and metrics of
    all directories that it shows, also of other experiments.
    """
    plugin_hparams_pb2: Any = importlib.import_module("tensorboardX.proto.plugin_hparams_pb2")
    summary_pb2: Any = importlib.import_module("tensorboardX.proto.summary_pb2")
    start = plugin_hparams_pb2.SessionStartInfo(group_name=group, start_time_secs=time.time())
    for name, value in values.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, (int, float)):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = str(value)
    content = plugin_hparams_pb2.HParamsPluginData(session_start_info=start, version=0)
    plugin = summary_pb2.SummaryMetadata.PluginData(
        plugin_name="hparams", content=content.SerializeToString()
    )
    metadata = summary_pb2.SummaryMetadata(plugin_data=plugin)
    tag = "_hparams_/session_start_info"
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, metadata=metadata)])
