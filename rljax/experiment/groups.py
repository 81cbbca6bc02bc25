"""Settings that need several compiled programs: one plan for each, and one result of all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax import config as configs
from rljax.experiment.directory import storing, writable
from rljax.experiment.hyperparameters import split_hyperparameters
from rljax.experiment.initial_params import checked_agent_states, loaded
from rljax.experiment.make_plan import agent_row, from_record, make_plan
from rljax.experiment.options import RECORDED
from rljax.experiment.plan import Plan
from rljax.experiment.run_plan import run_plan
from rljax.experiment.settings import AXIS, checked_settings, groups
from rljax.results.result import Best, Result
from rljax.results.storage import replace_file


class Group(NamedTuple):
    """The settings of one compiled program.

    Attributes:
      indices: their indices in the list of settings.
      plan: their plan.
    """

    indices: list[int]
    plan: Plan


def make_groups(agent: Any, env: Any, settings: Any, **options: Any) -> list[Group]:
    """Returns the plans of a list of settings, checked before anything is compiled.

    Args:
      agent, env: as in `rljax.train`.
      settings: a list of dicts, or None for a single plan without one.
      options: the other arguments of `make_plan`.

    Raises:
      ValueError: an argument is wrong.
    """
    if settings is None:
        return [Group([0], make_plan(agent, env, **options))]
    name, row = agent_row(agent)
    hyperparameters = {k: x for k, x in options.items() if k not in RECORDED}
    shared, _, _ = split_hyperparameters(name, row, hyperparameters)
    checked = checked_settings(name, row, settings, shared, hyperparameters)
    indices = groups(checked)

    def plan(group: list[int], num_reports: Any) -> Plan:
        chosen = [checked[i].complete() for i in group]
        return make_plan(agent, env, settings=chosen, **options | {"num_reports": num_reports})

    plans = [plan(group, options.get("num_reports", 50)) for group in indices]
    least = min(plan.num_reports for plan in plans)
    plans = [
        x if x.num_reports == least else plan(group, least)
        for group, x in zip(indices, plans, strict=True)
    ]
    return [Group(group, x) for group, x in zip(indices, plans, strict=True)]


def groups_from_record(
    record: Mapping[str, Any], env: Any = None, agent: Any = None, **pieces: Any
) -> list[Group]:
    """Rebuilds the plans of a record; the arguments and errors are those of `from_record`."""
    arguments = from_record(record, env, agent, **pieces)
    return make_groups(settings=arguments.pop("settings", None), **arguments)


def checked_source(found: list[Group], initial_params: Any) -> Any:
    """Returns the source of initial parameters, loaded and checked for the networks of all plans.

    Raises:
      ValueError: see `initial_params.checked_agent_states`.
    """
    source = loaded(initial_params)
    for group in found if source is not None else ():
        checked_agent_states(group.plan, source)
    return source


def run_groups(
    found: list[Group], run_dir: str | Path | None = None, *, resume: bool = False,
    initial_params: Any = None, **how: Any,
) -> Result:  # fmt: skip
    """Trains each plan in turn, and returns one result of all settings.

    Args:
      found: the plans.
      run_dir: the run directory; that of program i is `program-i` in it.
      resume: continue the programs that are not complete.
      initial_params: as in `rljax.train`.
      how: the other arguments of `run_plan`.
    """
    if len(found) == 1:
        return run_plan(found[0].plan, run_dir, resume=resume, initial_params=initial_params, **how)
    how["initial_params"] = checked_source(found, initial_params)
    if run_dir is not None and not resume:
        _create(found, Path(run_dir))
    results = []
    for number, (_, plan) in enumerate(found):
        path = None if run_dir is None else directory_of(found, run_dir, number)
        continues = resume and path is not None and (path / "config.toml").is_file()
        results.append(run_plan(plan, path, resume=continues, **how))
    result = joined(found, results)
    if run_dir is not None:
        with storing(Path(run_dir)):
            result.save(run_dir)
            result.plot(Path(run_dir) / "curve.png")
    return result


def directory_of(found: list[Group], run_dir: str | Path, number: int) -> Path:
    """Returns the directory of a program: that of the run if it is the only one."""
    return Path(run_dir) if len(found) == 1 else Path(run_dir) / f"program-{number}"


def _create(found: list[Group], run_dir: Path) -> None:
    """Creates the directory of a new run with its config.toml.

    Raises:
      ValueError: it contains a run already.
    """
    file = run_dir / "config.toml"
    if file.exists():
        raise ValueError(
            f"{run_dir} already contains a run: resume it with `rljax resume {run_dir}`, or choose "
            "another `run_dir`."
        )
    with writable(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        replace_file(file, configs.dump(record(found)).encode())


def record(found: list[Group]) -> dict[str, Any]:
    """Returns the plain values of all groups together: the content of config.toml."""
    records = [group.plan.record() for group in found]
    pieces = sorted({name for each in records for name in each.get("pieces", ())})
    together = records[0] | {"settings": _in_order(found, [x["settings"] for x in records])}
    return together | ({"pieces": pieces} if pieces else {})


def joined(found: list[Group], results: list[Result]) -> Result:
    """Returns one result of all settings, in the order of the list.

    The metrics of a program that others do not have are NaN there. The step of a report is the
    largest one of all programs: they differ by less than one update. The states of the programs
    may have different shapes: they stay in `Result.parts`.
    """
    first = results[0]
    missing = np.full_like(next(iter(first.metrics.values()))[:1], np.nan)

    def rows(result: Result, name: str) -> np.ndarray:
        filled = np.broadcast_to(missing, (len(result.sweep[AXIS]), *missing.shape[1:]))
        return result.metrics.get(name, filled)

    def join(arrays: list[Any]) -> Any:
        return None if any(x is None for x in arrays) else np.stack(_in_order(found, arrays))

    names = dict.fromkeys(name for result in results for name in result.metrics)
    evaluations = [result.evaluation or {} for result in results]
    evaluation = {name: join([x[name] for x in evaluations]) for name in evaluations[0]}
    bests = [result.best for result in results]
    best = None
    if all(x is not None for x in bests):
        best = Best(*(join([getattr(x, name) for x in bests]) for name in Best._fields[:-1]))
    settings = _in_order(found, [result.sweep[AXIS] for result in results])
    return Result(
        agent=first.agent, env_id=first.env_id, config=record(found),
        sweep=first.sweep | {AXIS: settings}, num_seeds=first.num_seeds, seed=first.seed,
        steps=np.max([result.steps for result in results], axis=0),
        metrics={name: join([rows(result, name) for result in results]) for name in names},
        evaluation=evaluation or None, best=best, stopped=join([x.stopped for x in results]),
        diverged=tuple(_in_whole(found, results)),
        compile_seconds=sum(result.compile_seconds for result in results),
        seconds=sum(result.seconds for result in results), parts=tuple(results),
    )  # fmt: skip


def _in_order(found: list[Group], by_group: list[Any]) -> list[Any]:
    """Returns the entries of each group in the order of the list of settings."""
    pairs = [
        (index, entry)
        for group, entries in zip(found, by_group, strict=True)
        for index, entry in zip(group.indices, entries, strict=True)
    ]
    return [entry for _, entry in sorted(pairs, key=lambda pair: pair[0])]


def _in_whole(found: list[Group], results: list[Result]) -> list[dict[str, Any]]:
    """Returns the diverged runs of all groups with their index among all settings and seeds."""
    diverged = []
    for group, result in zip(found, results, strict=True):
        runs_per_setting = np.prod(group.plan.leading_shape[1:], dtype=int)
        for run in result.diverged:
            setting, rest = divmod(run["run"], runs_per_setting)
            index = int(group.indices[setting] * runs_per_setting + rest)
            diverged.append({**run, "run": index})
    return sorted(diverged, key=lambda run: run["run"])
