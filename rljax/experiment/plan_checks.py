"""Checks of a plan as a whole, after those of its single options."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rljax import config as configs
from rljax.config.fields import MAX_STEPS
from rljax.ops.memory import device_bytes, readable, tree_bytes
from rljax.ops.observations import obs_structs
from rljax.types import EnvSpec, Learner

MAX_NAME = 60  # characters of a label
STOP_BY = ("median", "seed")  # what has to reach `stop_at`: the median over seeds, or each seed


def worker_part(config: Any, workers: int) -> Any:
    """Returns the config of one of several workers, with its part of environments and steps.

    Raises:
      ValueError: `num_envs` is not a multiple of `workers`, or the part is not a valid config.
    """
    if workers == 1:
        return config
    if config.num_envs % workers:
        raise ValueError(
            f"`num_envs` is {config.num_envs}, but it must be a multiple of the {workers} devices."
        )
    part = {
        "num_envs": config.num_envs // workers,
        "total_timesteps": config.total_timesteps // workers,
    }
    try:
        return dataclasses.replace(config, **part)
    except ValueError as error:
        raise ValueError(f"on each of the {workers} devices: {error}") from None


def check_effect(
    make_learner: Callable[[Any], Learner], config: Any, sweep: Mapping[str, Any]
) -> None:
    """Checks that each swept field is used: an argument such as `optimizer=` may replace it.

    Args:
      make_learner: `config -> Learner`.
      config: config of the runs.
      sweep: values of the swept fields.

    Raises:
      ValueError: the program of a run does not depend on a swept field.
    """

    def first_update(swept):
        learner = make_learner(dataclasses.replace(config, **swept))
        state = learner.init(jax.random.key(0))
        return state, learner.step(state)

    first = {name: jnp.float32(values[0]) for name, values in sweep.items()}
    program = jax.make_jaxpr(first_update)(first).jaxpr
    used = {id(x) for equation in program.eqns for x in equation.invars}
    used |= {id(x) for x in program.outvars}
    for name, variable in zip(sorted(first), program.invars, strict=True):
        if id(variable) not in used:
            raise ValueError(
                f"`{name}` is swept, but it has no effect with the other options and the arguments "
                "given: leave it out, or leave out what replaces it."
            )


def check_rollout_memory(config: Any, spec: EnvSpec) -> None:
    """Raises a `ValueError` if the observations of one rollout do not fit into the memory."""
    batch, limit = config.num_envs * config.num_steps, device_bytes()
    needed = 2 * batch * tree_bytes(obs_structs(spec))  # `obs` and `next_obs`
    if limit is not None and needed > limit:
        raise ValueError(
            f"one rollout of num_envs x num_steps = {batch:,} steps needs {readable(needed)} of "
            f"memory, but this machine has {readable(limit)}: lower `num_envs` or `num_steps`."
        )


def check_evaluations(
    config: Any, num_reports: int, eval_interval: Any, stop_at: Any, stop_by: Any
) -> tuple[int, float | None, str]:
    """Returns the options of evaluation during training in their types.

    Args:
      config: config of the runs.
      num_reports: number of reports; evaluations are made at reports.
      eval_interval: environment steps between two evaluations; 0 or None for none.
      stop_at: return at which training stops; None for none.
      stop_by: a name in `STOP_BY`.

    Raises:
      ValueError: an option is out of range, or has no effect without another one.
    """
    eval_interval = 0 if eval_interval is None else eval_interval
    eval_interval = configs.at_least("eval_interval", eval_interval, 0, MAX_STEPS)
    per_report = config.num_updates / num_reports * config.num_envs * config.num_steps
    if 0 < eval_interval < math.floor(per_report):
        raise ValueError(
            f"`eval_interval` is {eval_interval}, but evaluations are made at reports, which are "
            f"{math.ceil(per_report)} steps apart: raise it, or raise `num_reports`."
        )
    stop_by = configs.convert("stop_by", stop_by, str)
    if stop_by not in STOP_BY:
        raise ValueError(f"`stop_by` is {stop_by!r}, but it must be one of {', '.join(STOP_BY)}.")
    if stop_at is None:
        if stop_by != STOP_BY[0]:
            raise ValueError(f"`stop_by` is {stop_by!r}, but `stop_at` is not set: set it.")
        return eval_interval, None, stop_by
    stop_at = configs.convert("stop_at", stop_at, float)
    if not math.isfinite(stop_at):
        raise ValueError(f"`stop_at` is {stop_at}, but it must be a finite return.")
    if not eval_interval:
        raise ValueError(
            f"`stop_at` is {stop_at:g}, but training is not evaluated: set `eval_interval`, such "
            f"as {math.ceil(per_report)}."
        )
    return eval_interval, stop_at, stop_by


def checked_name(name: Any) -> str:
    """Returns the name of a run, or "" for None."""
    if name is None:
        return ""
    name = configs.convert("name", name, str)
    if not name or not name.isprintable() or len(name) > MAX_NAME:
        raise ValueError(
            f"`name` is {name!r}, but it must be a label of 1 to {MAX_NAME} printable characters."
        )
    return name
