"""Weights & Biases, and Trackio, which has a part of its interface."""

import contextlib
import contextvars
import io
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rljax.experiment.json_lines import Rows
from rljax.experiment.writers_curves import import_extra
from rljax.experiment.writers_service import Log, Service

if TYPE_CHECKING:
    from rljax.experiment.plan import Plan

ONLINE = ("online", "shared")  # values of `mode`


class WandB(Service):
    """Weights & Biases; offline, unless `mode` or the environment variable WANDB_MODE says else.

    The config of a W&B run holds the hyperparameters of its setting, the seed, and the versions of
    rljax, jax, jaxlib and Python. Different settings are never averaged. A resumed run continues
    the W&B runs of its run directory under the same ids, with one row for each step.

    Args:
      runs: "setting" opens a W&B run for each setting, with the mean over its seeds and the curve
        `METRIC/seed_i` of each seed. "each" opens one for each seed of each setting, in the group
        of the experiment; the job type is the setting. "one" opens one for the whole call: in a
        sweep its curves are `METRIC/SETTING` and `METRIC/SETTING/seed_i`.
      init: arguments of `wandb.init`: project, entity, group, name, tags, notes, mode, ... The
        variables WANDB_PROJECT, WANDB_ENTITY, ... set those that are left out. The project is
        "rljax" if neither does. `config` adds to the hyperparameters.

    Raises:
      ValueError: `runs` is none of these.

    Example:
      >>> WandB(project="cartpole", tags=["baseline"], runs="each")
      WandB(runs='each', project='cartpole', tags=['baseline'])
    """

    extra = "wandb"
    own = ("id", "dir", "resume", "reinit")

    def open(self, directory: Path | None, rows: Rows, plan: "Plan") -> None:
        """Opens the W&B runs, and logs the rows that they lack."""
        self._base_id = _base_id(directory, self._runs)
        super().open(directory, rows, plan)
        if online := [log.run for log in self._logs if not log.run.offline and log.run.url]:
            url = online[0].url if len(online) == 1 else online[0].project_url
            print(f"W&B: {url}", file=sys.stderr)

    def close(self) -> None:
        """Finishes the W&B runs, and says how to upload those that are offline."""
        offline = [str(Path(log.run.dir).parent) for log in self._logs if log.run.offline]
        for log in self._logs:
            log.run.finish(exit_code=int(sys.exc_info()[0] is not None))
        if offline:
            parent = Path(offline[0]).parent
            paths = offline[0] if len(offline) == 1 else f"{parent}/offline-run-*"
            print(f"W&B is offline. Upload with: wandb sync {paths}", file=sys.stderr)

    def _defaults(self, experiment: str) -> dict[str, Any]:
        variables = {"project": "WANDB_PROJECT", "name": "WANDB_NAME", "group": "WANDB_RUN_GROUP"}
        found = {option: os.environ.get(name) for option, name in variables.items()}
        return super()._defaults(experiment) | {x: value for x, value in found.items() if value}

    def _start(
        self, directory: Path | None, options: dict[str, Any], labels: Sequence[str],
        curves: dict[str, np.ndarray],
    ) -> Log:  # fmt: skip
        module, run_id = import_extra(self.extra, self.extra), f"{self._base_id}-{len(self._logs)}"
        if labels and not labels[0].startswith("seed_"):
            options = {"job_type": labels[0]} | options
        mode = options.pop("mode", None) or os.environ.get("WANDB_MODE") or "offline"
        if mode in ONLINE:
            options["resume"] = "allow"
        elif directory:
            _set_aside(directory / "wandb", run_id)
        quiet = module.Settings(silent=True, console="off")  # the terminal shows the progress bar
        run = module.init(
            **{"settings": quiet} | options, mode=mode, id=run_id, reinit="create_new",
            dir=str(directory) if directory else None,
        )  # fmt: skip
        return Log(run, curves, run.step)


class Trackio(Service):
    """Trackio, <https://github.com/gradio-app/trackio>; `trackio show` opens its dashboard.

    Trackio runs have the names, configs and curves that `WandB` describes. A resumed run replaces
    those of its run directory by new ones with all rows, unless they are on a server.

    Args:
      runs: as in `WandB`.
      init: arguments of `trackio.init`, such as project, group, space_id and server_url. The
        project is "rljax" if it is left out.

    Raises:
      ValueError: `runs` is neither "setting", "each" nor "one".

    Example:
      >>> Trackio(project="cartpole")
      Trackio(runs='setting', project='cartpole')
    """

    extra = "trackio"
    own = ("resume", "embed")

    def open(self, directory: Path | None, rows: Rows, plan: "Plan") -> None:
        """Opens the Trackio runs, and logs all rows."""
        file = directory / "trackio-ids" if directory else None
        if file and file.exists():
            self._delete(file.read_text().split())
        super().open(directory, rows, plan)
        if file:
            file.write_text("".join(f"{log.run.id}\n" for log in self._logs))

    def close(self) -> None:
        """Finishes the Trackio runs, and says how to see them."""
        for log in self._logs:
            _quietly(log.run.finish)
        project = self._logs[0].run.project if self._logs else ""
        print(f'Trackio: trackio show --project "{project}"', file=sys.stderr)

    def _start(
        self, directory: Path | None, options: dict[str, Any], labels: Sequence[str],
        curves: dict[str, np.ndarray],
    ) -> Log:  # fmt: skip
        init = import_extra(self.extra, self.extra).init
        # `init` finishes the last run of its context: each run has one of its own
        run = _quietly(lambda: contextvars.Context().run(lambda: init(**options, embed=False)))
        return Log(run, curves)

    def _delete(self, ids: Sequence[str]) -> None:
        """Deletes the Trackio runs of an interrupted run; they do not exist on another machine."""
        with contextlib.suppress(ValueError):  # there is no such project
            project = (self._defaults("") | self._init)["project"]
            for run in import_extra(self.extra, self.extra).Api().runs(project):
                if run.id in ids:
                    run.delete()


def _quietly(call: Callable[[], Any]) -> Any:
    """Calls a function without what it prints: the terminal shows the progress bar."""
    with contextlib.redirect_stdout(io.StringIO()):
        return call()


def _base_id(directory: Path | None, runs: str) -> str:
    """Returns the first part of the ids of the W&B runs of a directory, the same for a resumed one.

    It differs between values of `runs`, whose W&B runs hold different curves.
    """
    new = secrets.token_hex(4)
    if directory:
        file = directory / "wandb" / "rljax-id"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(new)
        new = file.read_text().strip()
    return f"{new}-{runs}"


def _set_aside(parent: Path, run_id: str) -> None:
    """Moves the offline files of an interrupted W&B run to `replaced/`.

    The new ones have all rows. `wandb sync` of both would upload them under one id, where the
    second replaces the first.
    """
    for path in parent.glob(f"offline-run-*-{run_id}"):
        (parent / "replaced").mkdir(exist_ok=True)
        path.rename(parent / "replaced" / path.name)
