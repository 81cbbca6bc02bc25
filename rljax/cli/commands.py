"""The commands of `rljax`. Each imports what it needs when it runs."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from rljax.cli import devices, listing
from rljax.cli.help import with_default, wrap
from rljax.cli.parser import Command, expect
from rljax.config import at_least, convert, field_types, load, unknown_key
from rljax.experiment.options import RUN_OPTIONS, read_record

RETURN = "charts/episodic_return"


def train(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax train AGENT ENV`: options override the file, which overrides the defaults."""
    several = any(name in options for name in devices.OPTIONS)
    run_dir = options.pop("run_dir", None)
    record, note = _settings(positionals, options)
    _check_names(record["agent"], options)
    is_first = devices.set_up(options, options.get("devices", record.get("devices")))
    how = _resumable_options(options)

    from rljax.experiment import directory, plan, run

    if env_params := _env_params(options):
        record["env_params"] = record.get("env_params", {}) | env_params
    record |= _with_sweeps(record["agent"], options)
    if several:
        import jax

        record.setdefault("devices", jax.device_count())
    planned = plan.plan_from_record(record)
    if note and is_first:
        print(note, file=sys.stderr)
    run_dir = run_dir or directory.new_directory(planned.agent, planned.env_id)
    result = run.run_plan(planned, run_dir, **how)
    if is_first:
        _print_result(result, run_dir)
        from rljax.rendering import watch

        watch.watch_after_training(planned, run_dir)


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


def _check_names(agent: str, options: dict[str, str]) -> None:
    """Checks that every option exists; unknown agents are reported later."""
    from rljax.agents import AGENTS

    known = [*COMMANDS["train"].options]
    if agent in AGENTS:
        known += field_types(AGENTS[agent].config)
        for name in options:
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


def _env_params(options: dict[str, str]) -> dict[str, Any]:
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
    is_first = devices.set_up(options, record.get("devices"))
    how = _resumable_options(options)

    from rljax.experiment import run

    result = run.resume(run_dir, **how, **options)
    if is_first:
        _print_result(result, run_dir)


def _print_result(result: Any, run_dir: str | Path) -> None:
    print(result.summary())
    print(f"{run_dir}  config.toml  metrics.jsonl  curves.npz  curve.png  checkpoint/")
    print(f"next:  rljax watch {run_dir}   rljax plot {run_dir}   rljax evaluate {run_dir}")


def evaluate(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax evaluate RUN_DIR`: the returns of each policy over fresh episodes."""
    (run_dir,) = expect(positionals, 1, "evaluate", "RUN_DIR")
    num_episodes = at_least("num_episodes", options.get("num_episodes", 100), 1)
    seed = convert("seed", options["seed"], int) if "seed" in options else None
    greedy = not convert("sample", options.get("sample", "false"), bool)

    from rljax.experiment.evaluation import (
        evaluate_states,
        in_suite,
        load_states,
        with_simulations,
    )

    plan, states = load_states(run_dir)
    if "in" in options:
        plan = in_suite(plan, options["in"])
    plan = with_simulations(plan, options.get("num_simulations"))
    opponent = options.get("opponent")
    evaluation = evaluate_states(plan, states.agent, num_episodes, seed, greedy, opponent)
    returns = evaluation["returns"].reshape(plan.num_runs, -1)
    unfinished = evaluation["unfinished"].reshape(-1)
    for i, scores in enumerate(returns):
        note = f"   {unfinished[i]} unfinished" if unfinished[i] else ""
        mean = f"{scores.mean():9.2f} +- {scores.std():.2f}"
        extremes = f"[{scores.min():g}, {scores.max():g}]"
        print(f"{plan.run_name(i):<24} {mean}  {extremes}{note}")
    actions = "greedy" if greedy else "sampled"
    print(f"{'mean':<24} {returns.mean():9.2f}   {num_episodes} episodes each, {actions} actions")


def plot(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax plot RUN_DIR ...`: learning curves of one or more runs."""
    if not positionals:
        expect(positionals, 1, "plot", "RUN_DIR ...")
    default = Path(positionals[0]) / "curve.png" if len(positionals) == 1 else "curves.png"
    output = options.get("output") or str(default)

    from rljax import results

    results.plot_results(positionals, output, options.get("metric", RETURN))
    print(output)


def watch(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax watch RUN_DIR`: one episode of a trained policy."""
    (run_dir,) = expect(positionals, 1, "watch", "RUN_DIR")

    from rljax.rendering import watch

    watch.watch(
        run_dir, run=options.get("run", 0), seed=options.get("seed", 0),
        max_steps=options.get("max_steps", 1000), output=options.get("output"),
    )  # fmt: skip


def play(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax play RUN_DIR`: a game against a trained policy, in the terminal."""
    (run_dir,) = expect(positionals, 1, "play", "RUN_DIR")

    from rljax.experiment import play as games

    first, run, seed = options.get("first", True), options.get("run", 0), options.get("seed", 0)
    simulations = options.get("num_simulations")
    games.play(run_dir, run=run, first=first, seed=seed, num_simulations=simulations)


def check_env(positionals: list[str], options: dict[str, str]) -> int:
    """`rljax check-env ENV`: a report; returns 1 if it has a fault."""
    (env_id,) = expect(positionals, 1, "check-env", "ENV")

    from rljax import envs

    report = envs.check_env(env_id, **_env_params(options))
    lines = str(report).splitlines()
    print("\n".join(wrap(line, hanging="  ") for line in lines))
    return 0 if report.ok else 1


def list_all(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax list`: all agents and environments, or the environments of one suite."""
    if positionals:
        (suite,) = expect(positionals, 1, "list", "SUITE")
        return print(listing.environments(suite))
    about = convert("about", options.get("about", "false"), bool)
    print(listing.properties() if about else listing.agents_and_environments())


_OPTION_HELPS = {
    name: with_default(option.help, option.default)
    for name, option in RUN_OPTIONS.items()
    if name not in ("env_params", "resume")
}
_RESUMABLE_HELPS = {
    name: _OPTION_HELPS[name] for name in RUN_OPTIONS if RUN_OPTIONS[name].resumable
}

_SIMULATIONS_HELP = "simulations of each search of alphazero and muzero (as in training)"

COMMANDS = {
    "train": Command(
        train, "AGENT ENV | FILE.toml", "train an agent on an environment, many seeds at once",
        {
            "config": "settings to start from: `tuned`, or a TOML file",
            **_OPTION_HELPS,
            "env_params.NAME": "parameter NAME of the environment",
            **devices.OPTIONS,
        },
        takes_hyperparameters=True,
    ),
    "resume": Command(
        resume, "RUN_DIR", "continue a run from its last checkpoint, with identical results",
        _RESUMABLE_HELPS | devices.OPTIONS,
        takes_hyperparameters=True,
    ),
    "evaluate": Command(
        evaluate, "RUN_DIR", "evaluate the trained policies of a run on fresh episodes",
        {
            "num_episodes": "number of episodes of each policy (100)",
            "seed": "random seed of the environments (the seed of the run)",
            "sample": "sample actions instead of taking the most probable (false)",
            "in": "evaluate in the same environment of another suite: gymnasium",
            "opponent": "opponent in a game: random, minimax, mcts or mcts:N (random)",
            "num_simulations": _SIMULATIONS_HELP,
        },
    ),
    "plot": Command(
        plot, "RUN_DIR ...", "draw the learning curves of runs into one figure",
        {
            "metric": f"metric on the vertical axis ({RETURN})",
            "output": "figure file: .png, .pdf or .svg; also -o (RUN_DIR/curve.png)",
        },
    ),
    "watch": Command(
        watch, "RUN_DIR", "show an episode of a trained policy: a GIF, or text for a grid",
        {
            "run": "index of the run to show; seeds vary fastest (0)",
            "seed": "random seed of the environment (0)",
            "max_steps": "maximum number of steps of the episode (1000)",
            "output": "animation file, a .gif; also -o (RUN_DIR/watch.gif)",
        },
    ),
    "play": Command(
        play, "RUN_DIR", "play a game of two players against a trained policy",
        {
            "run": "index of the run to play against; seeds vary fastest (0)",
            "first": "you move first; --no-first lets the policy move first (true)",
            "seed": "random seed of the policy (0)",
            "num_simulations": _SIMULATIONS_HELP,
        },
    ),
    "check-env": Command(
        check_env, "ENV", "check an environment with random actions and measure its speed",
        {"env_params.NAME": "parameter NAME of the environment"},
    ),
    "list": Command(
        list_all, "[SUITE]", "list all agents and environments, or those of one suite",
        {"about": "table of properties: on-policy, model-free, what is learned (false)"},
    ),
}  # fmt: skip
