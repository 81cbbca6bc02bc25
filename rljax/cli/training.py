"""The commands that train: `rljax train` and `rljax resume`."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from rljax.cli import devices, hints, parser
from rljax.cli.help import with_default
from rljax.cli.parser import FLAGS, expect
from rljax.config import convert, field_types, load, unknown_key
from rljax.experiment import signals
from rljax.experiment.options import RUN_OPTIONS, read_record

_HELPS = {
    name: with_default(option.help, option.default)
    for name, option in RUN_OPTIONS.items()
    if name not in ("env_params", "resume", "settings")  # settings: in a file
}
_RESUMABLE = {name: _HELPS[name] for name in RUN_OPTIONS if RUN_OPTIONS[name].resumable}

TRAIN_OPTIONS = {
    "config": "settings to start from: `tuned`, or a TOML file",
    **_HELPS,
    "env_params.NAME": "parameter NAME of the environment; see `rljax train AGENT ENV --help`",
    **devices.OPTIONS,
}
RESUME_OPTIONS = _RESUMABLE | devices.OPTIONS


def train(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax train AGENT ENV`: options override the file, which overrides the defaults."""
    parser.check_values(options, _flags(positionals))
    several = any(name in options for name in devices.OPTIONS)
    run_dir, initial_params = options.pop("run_dir", None), options.pop("initial_params", None)
    record, note = _settings(positionals, options)
    _check_names(record["agent"], options)
    is_first = devices.set_up(options, options.get("devices", record.get("devices")))
    how = _resumable_options(options)

    from rljax.experiment import directory, groups, run_plan

    if params := env_params(options):
        record["env_params"] = record.get("env_params", {}) | params
    record |= _with_sweeps(record["agent"], options)
    if several:
        import jax

        record.setdefault("devices", jax.device_count())
    planned = groups.groups_from_record(record)
    plan = planned[0].plan
    advice = hints.hint(plan.agent, plan.env_id, record)
    for line in filter(None, (note, advice)):
        if is_first:
            print(line, file=sys.stderr)
    run_plan.check_options(plan, run_dir or "runs", **how)
    initial_params = groups.checked_source(planned, initial_params)
    run_dir = run_dir or directory.new_directory(plan.agent, plan.env_id)
    result = groups.run_groups(planned, run_dir, initial_params=initial_params, **how)
    if is_first:
        with signals.interruptible(signals.complete_hint(Path(run_dir))):
            _print_result(result, run_dir)
            from rljax.rendering import watch

            if len(planned) == 1:
                watch.watch_after_training(plan, run_dir)


def _settings(positionals: list[str], options: dict[str, str]) -> tuple[dict[str, Any], str]:
    """Returns agent, env_id and the settings of the file, and a note on unused tuned settings."""
    from rljax.experiment import tuned

    source = options.pop("config", None)
    if len(positionals) == 1 and positionals[0].endswith(".toml"):
        if source is not None:
            raise ValueError(f"`config` is {source}, but {positionals[0]} is given too: give one.")
        record = load(positionals[0])
        for name in ("agent", "env_id"):
            if not isinstance(record.get(name), str):
                raise ValueError(f'{positionals[0]} has no `{name}`: add {name} = "...".')
        return record, ""
    agent, env_id = expect(positionals, 2, "train", "AGENT ENV")
    record, note = {}, ""
    if source == "tuned":
        record = tuned.tuned(agent, env_id)
        record.pop("env")
    elif source is not None:
        record = load(source)
    elif tuned.tuned_path(agent, env_id):
        file = f"configs/{agent}/{env_id.removeprefix('gymnax/')}.toml"
        note = f"{file} has tuned settings for this pair: add --config tuned"
    return record | {"agent": agent, "env_id": env_id}, note


def _flags(positionals: list[str]) -> list[str]:
    """Returns the options that need no value: those of the command, and of the agent if known."""
    from rljax.agents import AGENTS

    agents = [name for name in positionals[:1] if name in AGENTS] or list(AGENTS)
    fields = [field_types(AGENTS[agent].config).items() for agent in agents]
    return [*FLAGS, *(name for each in fields for name, kind in each if kind is bool)]


def _check_names(agent: str, options: dict[str, str]) -> None:
    """Checks that every option exists; unknown agents are reported later."""
    from rljax.agents import AGENTS

    known = [*TRAIN_OPTIONS]
    if agent in AGENTS:
        known += field_types(AGENTS[agent].config)
        for name in options:
            if name in ("agent", "env_id"):
                raise ValueError(f"`--{name}` is not an option: write rljax train AGENT ENV.")
            if name not in known and not name.startswith("env_params."):
                raise unknown_key(name, known, f"`{agent}`")


def _with_sweeps(agent: str, options: dict[str, str]) -> dict[str, Any]:
    """Turns "1e-4,3e-4" into a list, except for options that are tuples themselves."""
    from rljax.agents import AGENTS

    kinds = field_types(AGENTS[agent].config) if agent in AGENTS else {}
    return {
        name: value.strip("[]").split(",")
        if "," in value and kinds.get(name, str) in (bool, int, float, str)
        else value
        for name, value in options.items()
    }


def _resumable_options(options: dict[str, str]) -> dict[str, Any]:
    """Removes and returns the options that may change when a run is resumed."""
    given: dict[str, Any] = {
        name: options.pop(name)
        for name, option in RUN_OPTIONS.items()
        if option.resumable and name in options
    }
    if "writers" in given:
        given["writers"] = tuple(given["writers"].split(","))
    if "progress" in given:
        given["progress"] = convert("progress", given["progress"], bool)
    return given


def resume(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax resume RUN_DIR`."""
    (run_dir,) = expect(positionals, 1, "resume", "RUN_DIR")
    record = read_record(run_dir)
    if not set(options) - {*RUN_OPTIONS, *devices.OPTIONS} and _print_complete(run_dir):
        return
    is_first = devices.set_up(options, record.get("devices"))
    how = _resumable_options(options)

    from rljax.experiment import run

    given: dict[str, Any] = how | options
    result = run.resume(run_dir, **given)
    if is_first:
        _print_result(result, run_dir)


def _print_complete(run_dir: str) -> bool:
    """Prints the result of a complete run without JAX; returns whether the run is complete."""
    from rljax.results import files, storage

    if not (Path(run_dir) / storage.RECORD).is_file():
        return False
    try:
        saved = files.load_result(run_dir)
    except ValueError:  # `run.resume` makes the result again
        return False
    print(f"{run_dir} is already finished.", file=sys.stderr)
    _print_result(saved, run_dir)
    return True


def _print_result(result: Any, run_dir: str | Path) -> None:
    print(result.summary())
    print(f"{run_dir}  config.toml  metrics.jsonl  curves.npz  curve.png  checkpoint/")
    print("next:")
    for command in ("watch", "plot", "evaluate"):  # one in each line, so that it can be copied
        print(f"  rljax {command} {run_dir}")


def env_params(options: dict[str, str]) -> dict[str, Any]:
    """Removes and returns the parameters of the environment, options `env_params.NAME`."""
    return {
        name.removeprefix("env_params."): _parameter(options.pop(name))
        for name in list(options)
        if name.startswith("env_params.")
    }


def _parameter(text: str) -> Any:
    """Returns a parameter of an environment as a bool, an int, a float, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
