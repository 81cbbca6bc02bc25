"""`rljax.load`: the result of a run with its states, from its directory."""

import json
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax.experiment import divergence
from rljax.experiment.evaluation import load_checkpoint
from rljax.experiment.groups import directory_of, groups_from_record, joined
from rljax.experiment.options import read_record
from rljax.experiment.plan import Plan
from rljax.experiment.provenance import read_entries
from rljax.experiment.saved import Saved, SavedTree, with_states
from rljax.ops.precision import in_32_bits
from rljax.results.arrays import Best
from rljax.results.files import load_result
from rljax.results.result import Result
from rljax.results.storage import RECORD


@in_32_bits
def load(run_dir: str | Path, *, env: Any = None, agent: Any = None, **pieces: Any) -> Result:
    """Loads a run with its states, so that its policies can be used.

    The run may be complete, interrupted, or in progress in another process: then the curves and
    the states are those of the last checkpoint. Only `rljax.load_result` works without JAX; it
    loads the curves of a complete run.

    Args:
      run_dir: the run directory.
      env: the environment, if it is your own object.
      agent: `(config class, maker)`, if it is your own agent.
      pieces: the pieces that the run was made with, such as `network=`.

    Returns:
      The `Result` with `plan`, `state`, `params` and, after `eval_interval`, `best`. Of a run that
      is not complete, `evaluation` is None, and `best` has no returns, `[*sweep, seeds, 0]`. Of
      settings that need several programs, the states are those of `Result.parts`.

    Raises:
      ValueError: there is no run or no checkpoint, all checkpoints are damaged, or an environment,
        agent or piece of your own is missing.

    Example:
      >>> import rljax, tempfile
      >>> run_dir = tempfile.mkdtemp() + "/run"
      >>> _ = rljax.train(
      ...     "q_learning", "rljax/Maze", run_dir=run_dir, total_timesteps=400, num_reports=4,
      ...     eval_episodes=0, progress=False,
      ... )
      >>> run = rljax.load(run_dir)
      >>> run.returns.shape, run.params.q.shape
      ((1, 4), (1, 16, 4))
      >>> run.policy()(0) in range(4)
      True
    """
    run_dir = Path(run_dir)
    found = groups_from_record(read_record(run_dir), env, agent, **pieces)
    parts = [_load(directory_of(found, run_dir, i), each.plan) for i, each in enumerate(found)]
    if len(parts) == 1:
        return parts[0]
    if len({result.steps.size for result in parts}) > 1:
        raise ValueError(
            f"the settings of {run_dir} are trained by {len(parts)} programs, of which not all are "
            f"complete: resume the run, or load a program, such as {run_dir}/program-0."
        )
    return joined(found, parts)


def _load(run_dir: Path, plan: Plan) -> Result:
    """Returns the result of one program."""
    tree, saved = load_checkpoint(run_dir, plan)
    result = _complete_result(run_dir, plan, saved) or _result_so_far(run_dir, plan, tree, saved)
    return with_states(result, plan, tree)


def _complete_result(run_dir: Path, plan: Plan, saved: Saved) -> Result | None:
    """Returns the saved result of a complete run; None if it is not, or of fewer steps."""
    if not saved.is_complete(plan) or not (run_dir / RECORD).is_file():
        return None
    try:
        result = load_result(run_dir)
    except ValueError as damage:
        warnings.warn(f"the result is that of the last checkpoint: {damage}", stacklevel=4)
        return None
    is_same = result.config == json.loads(json.dumps(plan.record()))
    return result if is_same else None


def _result_so_far(run_dir: Path, plan: Plan, tree: SavedTree, saved: Saved) -> Result:
    """Returns the result up to a checkpoint, without an evaluation."""
    runs = plan.first_workers(tree.runs)
    diverged = divergence.in_params(plan, runs.state.agent, saved.num_updates)
    diverged |= divergence.in_report(jax.device_get(runs.report))
    rows = saved.rows
    names = rows[0][1] if rows else ()
    metrics = {name: np.stack([metrics[name] for _, metrics in rows], axis=-1) for name in names}
    best = None
    if saved.best_step is not None:
        none = np.zeros((*plan.leading_shape, 0))
        best = Best(plan.by_setting(saved.best_step), none, none.astype(np.int64))
    return Result(
        agent=plan.agent, env_id=plan.env_id, config=plan.record(), sweep=plan.sweep,
        num_seeds=plan.num_seeds, seed=plan.seed,
        steps=np.array([step for step, _ in rows], np.int64), metrics=plan.by_setting(metrics),
        diverged=tuple(run.record(plan) for _, run in sorted(diverged.items())), best=best,
        stopped=None if saved.stopped is None else plan.by_setting(saved.stopped),
        seconds=sum(entry["seconds"] for entry in read_entries(run_dir)),
    )  # fmt: skip
