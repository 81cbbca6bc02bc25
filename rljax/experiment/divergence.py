"""Detection of NaN and infinite values in the metrics and parameters of runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax.experiment.plan import Plan
from rljax.training.learner import Report
from rljax.training.runs import first_nonfinite
from rljax.types import PyTree, params_of


class Divergence(NamedTuple):
    """The first NaN or infinite value of a run.

    Attributes:
      run: index of the run among settings and seeds; seeds vary fastest.
      update: number of updates of the run, with the one that computed the value.
      name: the metric or the parameter.
    """

    run: int
    update: int
    name: str

    def record(self, plan: Plan) -> dict[str, Any]:
        """Returns it as plain values: "run", "step", "name" and "title", such as "seed 3"."""
        step = self.update * plan.steps_per_update
        title = plan.run_name(self.run)
        return {"run": self.run, "step": step, "name": self.name, "title": title}


def in_report(report: Report) -> dict[int, Divergence]:
    """Returns the divergences in the metrics of a report, by run."""
    found = first_nonfinite(report)
    return {run: Divergence(run, update + 1, name) for run, (update, name) in found.items()}


def in_params(plan: Plan, agent_states: PyTree, num_updates: int) -> dict[int, Divergence]:
    """Returns the divergences in parameters `[R, ...]`, because metrics show those before them."""
    found: dict[int, Divergence] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params_of(agent_states)):
        leaf = np.asarray(leaf)
        # in a table, -inf marks the illegal actions of an action mask
        is_marked = np.isneginf(leaf) & (plan.row.tabular and bool(plan.env.spec.action_mask))
        finite = (np.isfinite(leaf) | is_marked).reshape(len(leaf), -1).all(axis=1)
        for run in np.flatnonzero(~finite):
            name = f"params{jax.tree_util.keystr(path)}"
            found.setdefault(int(run), Divergence(int(run), num_updates, name))
    return found


def check(plan: Plan, found: Mapping[int, Divergence], directory: Path | None) -> None:
    """Checks that at least one run is finite. Finite runs continue without the diverged ones.

    Raises:
      FloatingPointError: all runs diverged; the first of them is named.
    """
    if len(found) == plan.num_runs:
        raise _error(plan, min(found.values(), key=lambda x: (x.update, x.run)), directory)


def _error(plan: Plan, first: Divergence, directory: Path | None) -> FloatingPointError:
    where = f"update {first.update}, {plan.run_name(first.run)}"
    step = f"step {first.update * plan.steps_per_update} ({where})"
    saved = "Nothing was saved."
    if directory:
        saved = f"The last checkpoint in {directory} is finite."
        if plan.num_runs > 1:
            saved = f"The last checkpoint is in {directory}."
    if first.name == "charts/legal_actions":
        return FloatingPointError(
            f"{plan.env_id} reached a state without a legal action at {step}: end the episode, "
            f"`terminated`, where no action is legal. {saved}"
        )
    names = ("learning_rate", "max_grad_norm")
    lower = " or ".join(f"`{name}`" for name in names if hasattr(plan.config, name))
    has_option = hasattr(plan.config, "normalize_reward")
    scale = "scale the rewards" + (", for example with normalize_reward=True" if has_option else "")
    cure = f"Lower {lower}, or {scale}." if lower else f"{scale.capitalize()}."
    if first.name in ("charts/reward", "charts/episodic_return"):
        check = "check the environment"
        if not plan.env.spec.num_actions:  # NaN actions of a policy give NaN rewards
            check += f". If they are finite for finite actions, {cure[0].lower()}{cure[1:-1]}"
        return FloatingPointError(
            f"{plan.env_id} returned a reward that is NaN or infinite at {step}: {check}. {saved}"
        )
    others = ""
    if plan.num_runs > 1:
        others = f" All {plan.num_runs} runs diverged, this one first."
    return FloatingPointError(
        f"`{first.name}` is NaN or infinite at {step}.{others} {cure} {saved}"
    )
