"""What a checkpoint of a run holds: the state of the runs, and metadata that is checked."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax.experiment import checkpoint
from rljax.experiment.checkpoint_file import DamagedCheckpoint
from rljax.experiment.evaluator import acting_part
from rljax.experiment.json_lines import Rows
from rljax.experiment.lengthen import lengthened
from rljax.experiment.options import RUN_OPTIONS
from rljax.experiment.plan import Plan
from rljax.results.result import Result
from rljax.training import acting
from rljax.training.runs import RunState, template
from rljax.types import PyTree, params_of


class Saved(NamedTuple):
    """The metadata of a checkpoint.

    Attributes:
      rows: rows of metrics up to the checkpoint.
      num_updates: updates done by each run.
      num_shards: number of groups that the runs were placed in; None if it is not known.
      stopped: environment steps at which each run stopped early, `[R]`; NaN where it did not.
      best_score: mean return of the best evaluation during training, `[R]`; NaN without one.
      best_step: environment steps of a run at that evaluation, `[R]`.
    """

    rows: Rows
    num_updates: int
    num_shards: int | None = None
    stopped: Any = None
    best_score: Any = None
    best_step: Any = None

    def is_complete(self, plan: Plan) -> bool:
        """Whether all runs were trained to their end, or stopped early."""
        all_stopped = self.stopped is not None and not np.isnan(self.stopped).any()
        return all_stopped or self.num_updates >= plan.config.num_updates

    def to_json(self) -> str:
        """Returns it as text, from which `saved_from_json` makes an equal one."""
        values = self._asdict() | {"rows": rows_to_json(self.rows)}
        return json.dumps(values, default=np.ndarray.tolist)


class SavedTree(NamedTuple):
    """The arrays of a checkpoint.

    Attributes:
      runs: the state of all runs, `[E, ...]`.
      best: the acting part of the best policies, `[R, ...]`; of the first ones before an
        evaluation, and None for a plan without evaluations.
    """

    runs: RunState
    best: PyTree = None


def saved_from_json(text: str) -> Saved:
    """Returns the metadata that `Saved.to_json` wrote."""
    values = json.loads(text)
    return _with_arrays(Saved(**values | {"rows": rows_from_json(values["rows"])}))


def saved_template(plan: Plan, runs: RunState | None = None) -> SavedTree:
    """Returns the arrays of a checkpoint of a plan, or their shapes, without computing anything.

    Args:
      plan: the runs.
      runs: the state of the runs; None takes its shapes.
    """
    if runs is None:
        runs = template(plan.make_learner(), plan.config, plan.worker_inits())
    if not plan.eval_interval:
        return SavedTree(runs)

    def best(states):
        return acting.keep(plan.first_workers(states), acting_part(plan).leaves, num_axes=1)

    return SavedTree(runs, jax.eval_shape(best, runs.state.agent))


def save(directory: Path, plan: Plan, tree: SavedTree, saved: Saved) -> None:
    """Writes a checkpoint into the directory of checkpoints."""
    values = json.loads(saved.to_json()).items()
    meta = {"config": plan.record()} | {name: x for name, x in values if x is not None}
    checkpoint.save(directory, tree if plan.eval_interval else tree.runs, meta, saved.num_updates)


def load(
    directory: Path, plan: Plan, like: SavedTree | None = None
) -> tuple[SavedTree, Saved] | None:
    """Returns the newest undamaged checkpoint of a plan, or None if there is none.

    Args:
      directory: the directory of checkpoints.
      plan: the runs.
      like: what `saved_template` returns; None makes it.

    Raises:
      ValueError: all are damaged, or are of a run with other options.
    """
    like = saved_template(plan) if like is None else like
    tree = like if plan.eval_interval else like.runs
    found = checkpoint.restore(directory, tree, partial(parse, plan))
    return found and (found[0] if plan.eval_interval else SavedTree(found[0]), found[1])


def with_states(result: Result, plan: Plan, tree: SavedTree) -> Result:
    """Returns a result with the plan and the states of a checkpoint."""
    state = plan.by_setting(plan.first_workers(tree.runs.state))
    best = result.best and result.best._replace(state=plan.by_setting(tree.best))
    params = params_of(state.agent)
    return dataclasses.replace(result, plan=plan, state=state, params=params, best=best)


def parse(plan: Plan, path: Path, meta: Any) -> Saved:
    """Returns the metadata of a checkpoint of a plan.

    Raises:
      DamagedCheckpoint: the metadata is malformed.
      ValueError: the checkpoint is of a run with other options; each is named.
    """
    try:
        config, rows = dict(meta["config"]), rows_from_json(meta["rows"])
        names = [name for name in Saved._fields if name in meta and name != "rows"]
        saved = _with_arrays(Saved(rows, **{name: meta[name] for name in names}))
        row_names = {frozenset(metrics) for _, metrics in rows}
        arrays = [values for _, metrics in rows for values in metrics.values()]
        arrays += [x for x in (saved.stopped, saved.best_score, saved.best_step) if x is not None]
        counts = [saved.num_updates, *(step for step, _ in rows), *({saved.num_shards} - {None})]
        if {x.shape for x in arrays} - {(plan.num_runs,)} or len(row_names) > 1:
            raise ValueError("the rows differ")
        if {*map(type, counts)} != {int}:
            raise ValueError("a number is no integer")
        if not 0 <= saved.num_updates <= plan.config.num_updates:
            raise ValueError("the number of updates is out of range")
        if (saved.best_score is None) != (saved.best_step is None):
            raise ValueError("the best evaluations are incomplete")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise DamagedCheckpoint(f"{path} has malformed metadata: use another file.") from None
    new = lengthened(config, plan)
    checkpoint.check_config(path, new, plan.record(), default_values(plan))
    return saved if new == config else saved._replace(stopped=None)


def default_values(plan: Plan) -> dict[str, Any]:
    """Returns the default values of the options of a plan, by name."""
    fields = dataclasses.fields(plan.config)
    values = {x.name: x.default for x in fields if x.default is not dataclasses.MISSING}
    return values | {option.name: option.default for option in RUN_OPTIONS.values()}


def rows_to_json(rows: Rows) -> list[Any]:
    """Returns rows as lists and plain numbers."""
    return [
        [step, {name: values.tolist() for name, values in metrics.items()}]
        for step, metrics in rows
    ]


def rows_from_json(listed: list[Any]) -> Rows:
    """Returns the rows that `rows_to_json` was given."""
    return [
        (step, {name: np.asarray(values, np.float32) for name, values in metrics.items()})
        for step, metrics in listed
    ]


def _with_arrays(saved: Saved) -> Saved:
    def array(values, dtype):
        return None if values is None else np.asarray(values, dtype)

    return saved._replace(
        stopped=array(saved.stopped, np.float64), best_score=array(saved.best_score, np.float64),
        best_step=array(saved.best_step, np.int64),
    )  # fmt: skip
