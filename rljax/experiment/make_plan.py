"""Plans from the arguments of `rljax.train`, or from a record, with all checks."""

import inspect
from collections.abc import Mapping
from typing import Any

from rljax import config as configs
from rljax import envs
from rljax.agents import AGENTS, AgentRow
from rljax.experiment.hyperparameters import split_hyperparameters
from rljax.experiment.options import RECORDED
from rljax.experiment.plan import Plan, as_observed
from rljax.experiment.plan_checks import (
    check_effect,
    check_evaluations,
    check_rollout_memory,
    checked_name,
    worker_part,
)
from rljax.experiment.settings import AXIS, checked_settings, groups
from rljax.ops import random
from rljax.ops.precision import in_32_bits
from rljax.results import sweeps
from rljax.training import compile_cache

MAX_REPORTS = 10**6
MAX_SEEDS = 2**24  # their keys fit into memory before the program's memory is known


@in_32_bits
def make_plan(
    agent: Any, env: Any, *, num_seeds: Any = 1, seed: Any = 0, num_reports: Any = 50,
    env_params: Any = None, devices: Any = None, name: Any = None, eval_interval: Any = 0,
    stop_at: Any = None, stop_by: Any = "median", settings: Any = None, **hyperparameters: Any,
) -> Plan:  # fmt: skip
    """Checks the arguments of `rljax.train` and builds the environment.

    Raises:
      ValueError: an argument is wrong; one sentence says which.
    """
    compile_cache.enable()
    agent, row = agent_row(agent)
    num_seeds = configs.at_least("num_seeds", num_seeds, 1, MAX_SEEDS)
    num_reports = configs.at_least("num_reports", num_reports, 1, MAX_REPORTS)
    seed = random.checked_seed(seed)
    env, params = envs.with_params(env, env_params)
    values, sweep, pieces = split_hyperparameters(agent, row, hyperparameters)
    if settings is not None:
        values, sweep, pieces = _with_settings(agent, row, settings, values, sweep, pieces)
    # each swept value has been checked; the extremes are checked together with the other options
    extremes = {
        name: options if name == AXIS else [*{min(options), max(options)}]
        for name, options in sweep.items()
    }
    for setting in sweeps.settings(extremes):
        configs.from_mapping(row.config, values | _fields(row, setting))
    config = configs.from_mapping(row.config, values | _fields(row, sweeps.settings(sweep)[0]))
    custom_env = not isinstance(env, str)
    single = envs.make(env, **params)
    if custom_env:
        envs.validate(single)
    row.check(agent, single.spec)
    check_rollout_memory(config, single.spec)
    workers = 1 if devices is None else configs.at_least("devices", devices, 1)
    if workers > 1 and "average" not in inspect.signature(row.make).parameters:
        raise ValueError(
            f"`devices` is {workers}, but the maker of `{agent}` has no argument `average`, which "
            "averages gradients over devices: add it, or leave `devices` out."
        )
    num_reports = min(num_reports, config.num_updates)
    evaluations = check_evaluations(config, num_reports, eval_interval, stop_at, stop_by)
    plan = Plan(
        agent=agent, env_id=single.spec.env_id if custom_env else env, row=row,
        env=as_observed(row, config, single), env_params=params,
        custom_env=custom_env, config=config, sweep=sweep, pieces=pieces, num_seeds=num_seeds,
        seed=seed, num_reports=num_reports, workers=workers, name=checked_name(name),
        eval_interval=evaluations[0], stop_at=evaluations[1], stop_by=evaluations[2],
    )  # fmt: skip
    part = worker_part(config, workers)
    plan.make_agent(part, plan.build_env(part.num_envs))  # the maker checks its arguments
    if sweep and workers == 1:
        check_effect(plan.make_learner(), config, plan.swept)
    return plan


def _with_settings(
    agent: str, row: AgentRow, settings: Any, values: Any, sweep: Any, pieces: Any
) -> tuple[dict[str, Any], dict[str, list[Any]], dict[str, Any]]:
    """Returns values, sweep and pieces with a list of settings that share one program."""
    checked = checked_settings(agent, row, settings, values, {*values, *sweep, *pieces})
    if len(groups(checked)) > 1:
        static = [x for x in checked[0].shown if x not in checked[0].floats]
        raise ValueError(
            f"the settings of the run differ in {' and '.join(static)}, so that each compiled "
            "program has a directory of its own in that of the run: give one of those."
        )
    sweep = {AXIS: [setting.shown for setting in checked], **sweep}
    return values | checked[0].static, sweep, pieces | checked[0].pieces


def _fields(row: AgentRow, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a setting that are float fields of a config."""
    types = configs.field_types(row.config)
    return {name: value for name, value in setting.items() if types.get(name) is float}


def plan_from_record(
    record: Mapping[str, Any], env: Any = None, agent: Any = None, **pieces: Any
) -> Plan:
    """Rebuilds a plan from its record (`Plan.record`, config.toml).

    The arguments and errors are those of `from_record`, and a `ValueError` if the settings of the
    run have several compiled programs.
    """
    return make_plan(**from_record(record, env, agent, **pieces))


def from_record(
    record: Mapping[str, Any], env: Any = None, agent: Any = None, **pieces: Any
) -> dict[str, Any]:
    """Returns the arguments of `make_plan` that a record was made with.

    Args:
      record: plain values.
      env: the environment, if it is your own object.
      agent: `(config class, maker)`, if it is your own agent.
      pieces: the pieces that the run was made with: network=, optimizer=, ...

    Raises:
      ValueError: a value is wrong, or a piece is missing.
    """
    values = dict(record)
    name, env_id = values.pop("agent", None), values.pop("env_id", None)
    if not isinstance(name, str) or not isinstance(env_id, str):
        missing = "agent" if not isinstance(name, str) else "env_id"
        raise ValueError(f'`{missing}` is missing from the configuration: add {missing} = "...".')
    own_agent = agent is not None
    agent = agent if own_agent else name
    given = {*pieces, *(["env"] if env is not None else []), *(["agent"] if own_agent else [])}
    given |= {name for setting in pieces.get("settings") or () for name in setting}
    if missing := sorted(set(values.pop("pieces", [])) - given):
        raise ValueError(
            f"the run was made with its own `{missing[0]}`, which config.toml cannot hold: pass "
            f"`{missing[0]}=` again, in Python."
        )
    known = [*configs.field_types(agent_row(agent)[1].config), *RECORDED]
    for key in values:
        if key not in known:
            raise configs.unknown_key(key, known, f"`{name}`")
    values |= pieces
    return {"agent": agent, "env": env_id if env is None else env, **values}


def agent_row(agent: Any) -> tuple[str, AgentRow]:
    """Returns the name and the row of an agent, given by name or as a config class and a maker.

    Raises:
      ValueError: there is no such agent.
    """
    if isinstance(agent, str):
        if agent not in AGENTS:
            raise ValueError(f"there is no agent `{agent}`: {configs.suggestion(agent, AGENTS)}")
        return agent, AGENTS[agent]
    if isinstance(agent, tuple) and len(agent) >= 2 and callable(agent[1]):
        return getattr(agent[1], "__name__", "agent"), AgentRow(*agent)
    raise ValueError(
        f"`agent` is {agent!r}, but it must be a name ({', '.join(AGENTS)}) or a pair of a config "
        "class and a maker, like the rows of `rljax.AGENTS`."
    )
