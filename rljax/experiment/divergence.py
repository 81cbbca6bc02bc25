"""Detection of NaN and infinite values in the metrics and parameters of a run."""

import jax
import numpy as np

from rljax.experiment.directory import RunDirectory
from rljax.experiment.plan import Plan
from rljax.training.learner import Report
from rljax.training.runs import first_nonfinite
from rljax.types import PyTree, params_of


def check_report(plan: Plan, report: Report, directory: RunDirectory | None) -> None:
    """Checks the metrics since the last report.

    Raises:
      FloatingPointError: a metric was NaN or infinite; the first one is named.
    """
    if found := first_nonfinite(report):
        update, run, name = found
        raise _error(plan, name, update + 1, run, directory)


def check_params(
    plan: Plan, agent_states: PyTree, num_updates: int, directory: RunDirectory | None
) -> None:
    """Checks the parameters `[R, ...]`, because metrics show those before the last update.

    Raises:
      FloatingPointError: a parameter is NaN or infinite.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params_of(agent_states)):
        leaf = np.asarray(leaf)
        # in a table, -inf marks the illegal actions of an action mask
        is_marked = np.isneginf(leaf) & (plan.row.tabular and bool(plan.env.spec.action_mask))
        finite = (np.isfinite(leaf) | is_marked).reshape(plan.num_runs, -1).all(axis=1)
        if not finite.all():
            name = f"params{jax.tree_util.keystr(path)}"
            raise _error(plan, name, num_updates, int(finite.argmin()), directory)


def _error(
    plan: Plan, name: str, update: int, run: int, directory: RunDirectory | None
) -> FloatingPointError:
    step = f"step {update * plan.steps_per_update} (update {update}, {plan.run_name(run)})"
    saved = "Nothing was saved."
    if directory:
        saved = f"The last checkpoint in {directory.path} is finite."
    if name == "charts/legal_actions":
        return FloatingPointError(
            f"{plan.env_id} reached a state without a legal action at {step}: end the episode, "
            f"`terminated`, where no action is legal. {saved}"
        )
    names = ("learning_rate", "max_grad_norm")
    lower = " or ".join(f"`{name}`" for name in names if hasattr(plan.config, name))
    has_option = hasattr(plan.config, "normalize_reward")
    scale = "scale the rewards" + (", for example with normalize_reward=True" if has_option else "")
    cure = f"Lower {lower}, or {scale}." if lower else f"{scale.capitalize()}."
    return FloatingPointError(f"`{name}` is NaN or infinite at {step}. {cure} {saved}")
