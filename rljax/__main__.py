"""The command line: `rljax train ppo CartPole-v1 --num-seeds 8`.

Every option of a config is an option here under the same name, read by the same code that reads
TOML and Python arguments, so a mistake gets the same sentence everywhere. Nothing heavy is
imported before a command needs it: `--help` answers at once.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HEAD = """rljax: reinforcement learning on JAX

usage: rljax COMMAND ... [--option value ...]
"""
EXAMPLES = """
examples:
  rljax train ppo CartPole-v1 --num-seeds 8
  rljax train ppo CartPole-v1 --learning-rate 1e-4,3e-4,1e-3    a sweep in one compiled program
  rljax train configs/ppo/Pendulum-v1.toml --total-timesteps 1e6
  rljax train ppo --help                                        the options of PPO
"""
RETURN = "charts/episodic_return"


class Command(NamedTuple):
    run: Callable[[list[str], dict[str, str]], None]
    words: str  # what stands before the options
    about: str
    options: dict[str, str]  # name -> help; None of them in `train` is a hyperparameter


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns the exit code: 0, 1 diverged, 2 a mistake, 130 Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(HEAD + "\ncommands:")
            for name, command in COMMANDS.items():
                print(f"  {name:<9} {command.words:<24} {command.about}")
            print(EXAMPLES, end="")
            return 0
        if words[0] == "--version":
            from rljax import __version__

            print(__version__)
            return 0
        if words[0] not in COMMANDS:
            raise _unknown(words[0], COMMANDS, "rljax", "command")
        command = COMMANDS[words[0]]
        places, options = _split(words[1:])
        if "help" in options:
            _print_help(words[0], command, places)
            return 0
        if words[0] not in ("train", "resume"):
            for name in options:
                if name not in command.options:
                    raise _unknown(name, command.options, f"`rljax {words[0]}`", "option")
        command.run(places, options)
        return 0
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `rljax list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Leading words, and `--name value`, `--name=value`, `--flag`, `--no-flag` as texts."""
    words = ["--help" if word == "-h" else "--output" if word == "-o" else word for word in words]
    places = []
    while words and not words[0].startswith("--"):
        places.append(words.pop(0))
    options: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"`{word}` stands alone: put it before the options, or after a name.")
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if not equals and words and not words[0].startswith("--"):
            value = words.pop(0)
        elif not equals and name.startswith("no_"):
            name, value = name.removeprefix("no_"), "false"
        elif not equals:
            value = "true"
        if name in options:
            raise ValueError(f"`--{name.replace('_', '-')}` is given twice: give it once.")
        options[name] = value
    return places, options


def _unknown(name: str, known: Mapping[str, Any], owner: str, noun: str) -> ValueError:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    cure = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known) or 'none'}."
    return ValueError(f"{owner} has no {noun} `{name}`: {cure}")


def _places(places: list[str], count: int, command: str) -> list[str]:
    if len(places) != count:
        words = COMMANDS[command].words
        raise ValueError(
            f"`rljax {command}` takes {words}, but got {' '.join(places) or 'nothing'}."
        )
    return places


def _print_help(name: str, command: Command, places: list[str]) -> None:
    print(f"usage: rljax {name} {command.words} [--option value ...]\n\n{command.about}")
    if command.options:
        print("\noptions:")
        for option, about in command.options.items():
            print(f"  --{option.replace('_', '-'):<22} {about}")
    if name == "train":
        _print_hyperparameters(places)


def _print_hyperparameters(places: list[str]) -> None:
    """The options of the named agent, or of which agents there are some."""
    import dataclasses

    from rljax.agents import AGENTS

    if not places or places[0] not in AGENTS:
        print(f"\nand the options of the agent: rljax train AGENT --help, of {', '.join(AGENTS)}")
        return
    print(f"\noptions of {places[0]} (a list for a decimal one is a sweep: 1e-4,3e-4):")
    for field in dataclasses.fields(AGENTS[places[0]].config):
        default = field.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        about = field.metadata.get("help", "")
        if field.metadata.get("choices"):
            about += f": {', '.join(field.metadata['choices'])}"
        print(f"  --{field.name.replace('_', '-'):<22} {about} ({shown})")


RUN_OPTIONS = {
    "eval_episodes": "greedy episodes of each final policy (100)",
    "save_seconds": "between two checkpoints (30)",
    "writers": "of the metrics: jsonl,tensorboard,wandb (jsonl)",
    "progress": "--no-progress for silence",
}


def _run_options(options: dict[str, str]) -> dict[str, Any]:
    """Takes the options that say how, not what, to run."""
    from rljax.config import convert

    given: dict[str, Any] = {name: options.pop(name) for name in RUN_OPTIONS if name in options}
    if "writers" in given:
        given["writers"] = tuple(given["writers"].split(","))
    if "progress" in given:
        given["progress"] = convert("progress", given["progress"], bool)
    return given


PROCESSES = {
    "distributed": "one of several processes, found by the cluster (SLURM, Open MPI, ...)",
    "coordinator": "host:port of process 0, where there is no cluster to ask",
    "num_processes": "how many there are, likewise", "process_id": "which this one is, likewise",
}  # fmt: skip


def _claim_devices(options: dict[str, str], devices: Any) -> bool:
    """Before JAX starts: a CPU plays the devices asked for, processes find each other.

    Returns whether this is the process that writes and prints.
    """
    from rljax.config import convert

    address = options.pop("coordinator", None)
    count, process = (
        convert(name, options.pop(name), int) if name in options else None
        for name in ("num_processes", "process_id")
    )
    several = convert("distributed", options.pop("distributed", "false"), bool) or bool(address)
    if not several and (count is not None or process is not None):
        raise ValueError("`num_processes` needs a `coordinator`: give host:port of process 0.")
    if not several and devices is None:
        return True
    import jax

    wanted = 1 if devices is None else convert("devices", devices, int)
    here = wanted // (count or 1)
    flags = os.environ.get("XLA_FLAGS", "")
    if here > 1 and "xla_force_host_platform_device_count" not in flags:
        jax.config.update("jax_num_cpu_devices", here)
    if not several:
        return True
    from rljax.training import distributed

    distributed.join(address, count, process)
    return distributed.is_first()


def _train(places: list[str], options: dict[str, str]) -> None:
    from rljax import config
    from rljax.experiment import directory, plan, run

    several = any(name in options for name in PROCESSES)
    first = _claim_devices(options, options.get("devices"))
    run_dir, how = options.pop("run_dir", None), _run_options(options)
    record: dict[str, Any] = {}
    if len(places) == 1 and places[0].endswith(".toml"):
        record = config.load(places[0])
    else:
        record["agent"], record["env_id"] = _places(places, 2, "train")
    env_params = {
        name.removeprefix("env_params."): _number(options.pop(name))
        for name in list(options)
        if name.startswith("env_params.")
    }
    if env_params:
        record["env_params"] = record.get("env_params", {}) | env_params
    record |= {
        name: value.strip("[]").split(",") if "," in value and name != "hidden_sizes" else value
        for name, value in options.items()
    }
    if several:
        import jax

        record.setdefault("devices", jax.device_count())
    planned = plan.plan_of(record)
    run_dir = run_dir or directory.new_folder(planned.agent, planned.env_id)
    result = run.run(planned, run_dir, **how)
    if first:
        _finish(result, run_dir)
        from rljax.rendering import watch

        watch.replay(planned, run_dir)


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        from rljax.config import convert

        return convert("env_params", text, float)


def _resume(places: list[str], options: dict[str, str]) -> None:
    from rljax import config
    from rljax.experiment import run

    (run_dir,) = _places(places, 1, "resume")
    record = config.load(Path(run_dir) / "config.toml")
    first = _claim_devices(options, record.get("devices"))
    how = _run_options(options)
    result = run.resume(run_dir, **how, **options)
    if first:
        _finish(result, run_dir)


def _finish(result: Any, run_dir: str | Path) -> None:
    names = "config.toml  metrics.jsonl  curves.npz  curve.png  checkpoint/"
    print(result.summary())
    print(f"{run_dir}  {names}")
    print(f"next:  rljax watch {run_dir}   rljax plot {run_dir}   rljax evaluate {run_dir}")


def _evaluate(places: list[str], options: dict[str, str]) -> None:
    import numpy as np

    from rljax.config import convert
    from rljax.experiment import run

    (run_dir,) = _places(places, 1, "evaluate")
    seed = convert("seed", options["seed"], int) if "seed" in options else None
    greedy = not convert("sample", options.get("sample", "false"), bool)
    plan, states = run.load_states(run_dir)
    count = run.at_least("num_episodes", options.get("num_episodes", 100), 1)
    seen = run.evaluate_states(plan, states.agent, count, seed, greedy)
    flat = seen["returns"].reshape(plan.num_runs, -1)
    unfinished = seen["unfinished"].reshape(-1)
    for i, returns in enumerate(flat):
        late = f"   {unfinished[i]} not finished" if unfinished[i] else ""
        spread = f"{returns.mean():9.2f} +- {returns.std():.2f}"
        ends = f"[{returns.min():g}, {returns.max():g}]"
        print(f"{run.run_name(plan, i):<24} {spread}  {ends}{late}")
    how = "greedy" if greedy else "sampled"
    print(f"{'mean':<24} {np.mean(flat):9.2f}   {count} episodes each, {how}")


def _plot(places: list[str], options: dict[str, str]) -> None:
    from rljax import results

    if not places:
        _places(places, 1, "plot")
    output = options.get("output") or str(
        Path(places[0]) / "curve.png" if len(places) == 1 else "curves.png"
    )
    results.plot_results(places, output, options.get("metric", RETURN))
    print(output)


def _watch(places: list[str], options: dict[str, str]) -> None:
    from rljax.rendering import watch

    (run_dir,) = _places(places, 1, "watch")
    watch.watch(
        run_dir, index=options.get("run", 0), seed=options.get("seed", 0),
        max_steps=options.get("max_steps", 1000), output=options.get("output"),
    )  # fmt: skip


def _list(places: list[str], options: dict[str, str]) -> None:
    from rljax import agents, envs

    print("agents:")
    for name, row in agents.AGENTS.items():
        print(f"  {name:<22} {row.about}")
    print("environments:")
    for env_id in envs.environment_ids():
        print(f"  {env_id}")


COMMANDS = {
    "train": Command(
        _train, "AGENT ENV | FILE.toml", "train an agent, many seeds at once",
        {
            "num_seeds": "how many (1)", "seed": "the first of all (0)",
            "run_dir": "the run's folder (runs/AGENT-ENV-1)",
            "num_reports": "points of a curve (50)",
            "env_params.NAME": "a parameter of the environment", **RUN_OPTIONS,
            "devices": "learn each run on so many together (runs are spread over all)", **PROCESSES,
        },
    ),
    "resume": Command(
        _resume, "RUN_DIR", "go on with a run that was stopped", RUN_OPTIONS | PROCESSES
    ),
    "evaluate": Command(
        _evaluate, "RUN_DIR", "play the trained policies",
        {
            "num_episodes": "of each policy (100)", "seed": "of the environments (the run's)",
            "sample": "sample from the policy; greedy without",
        },
    ),
    "plot": Command(
        _plot, "RUN_DIR ...", "draw the curves of runs into one figure",
        {"metric": f"which ({RETURN})", "output": "-o: a .png, .pdf or .svg"},
    ),
    "watch": Command(
        _watch, "RUN_DIR", "play a trained policy: a GIF, or text for a grid",
        {
            "run": "which, seeds fastest (0)", "seed": "of the environment (0)",
            "max_steps": "at most (1000)", "output": "-o: a .gif (RUN_DIR/watch.gif)",
        },
    ),
    "list": Command(_list, "", "the agents and the environments there are", {}),
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
