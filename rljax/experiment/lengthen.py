"""Training of a run for more steps than it was planned for."""

import dataclasses
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

import jax

from rljax import config as configs
from rljax.experiment.plan import Plan
from rljax.training.parallel import WORKERS

SCHEDULES = {  # option that is on -> (option of the schedule, what it anneals over the whole run)
    "anneal_lr": ("anneal_lr", "the learning rate"),
    "eps_start": ("exploration_fraction", "epsilon"),
    "prioritized": ("importance_exponent", "the importance-sampling exponent"),
    "final_rollout_length": ("final_rollout_length", "the length of the model's rollouts"),
}


def lengthened_record(record: Mapping[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Returns the record of a run with the `total_timesteps` in `options`, which it removes.

    Reports continue with the same distance.

    Raises:
      ValueError: the run was planned for more steps.
    """
    if options.get("total_timesteps") is None:
        return dict(record)
    new = configs.convert("total_timesteps", options.pop("total_timesteps"), int)
    old = int(record["total_timesteps"])
    if new < old:
        raise ValueError(
            f"`total_timesteps` is {new}, but the run was planned for {old}: give more steps, or "
            "leave it out."
        )
    num_reports = math.ceil(int(record["num_reports"]) * new / old)
    return {**record, "total_timesteps": new, "num_reports": num_reports}


def lengthened(saved: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Returns a saved config as that of a plan with more steps, if it has more."""
    old, new = saved.get("total_timesteps"), plan.config.total_timesteps
    if not isinstance(old, int) or old >= new:
        return dict(saved)
    return {**saved, "total_timesteps": new, "num_reports": plan.num_reports}


def warn_of_schedules(plan: Plan, old_steps: int) -> None:
    """Warns if the schedules of a run change because it has more steps than before.

    The programs of an update are compared, so that the schedules of any agent are found.

    Args:
      plan: the longer run.
      old_steps: environment steps that the run was planned for.
    """
    before = plan._replace(config=dataclasses.replace(plan.config, total_timesteps=old_steps))
    if _program(before) == _program(plan):
        return
    named = [
        f"{what} (`{name}`)"
        for switch, (name, what) in SCHEDULES.items() if getattr(plan.config, switch, False)
    ]  # fmt: skip
    new_steps = plan.config.total_timesteps
    warnings.warn(
        f"{' and '.join(named) or 'a schedule'} of {plan.agent} depends on `total_timesteps`: "
        f"after step {old_steps:,} it continues as in a run of {new_steps:,} steps, so the result "
        "differs from that of a run which had this length from the start.",
        stacklevel=4,
    )


def _program(plan: Plan) -> str:
    """Returns the program of an update as text."""
    make_learner = plan.make_learner()

    def update(init):
        learner = make_learner(dataclasses.replace(plan.config, **init.swept))
        return learner.step(learner.init(init.key, init.worker))

    program = jax.make_jaxpr(jax.vmap(update, axis_name=WORKERS))(plan.worker_inits())
    return re.sub(r"0x[0-9a-f]+", "", str(program))  # addresses of functions
