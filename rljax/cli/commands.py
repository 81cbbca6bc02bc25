"""The commands of `rljax`. Each imports what it needs when it runs."""

from pathlib import Path

from rljax.cli import comparing, listing, training
from rljax.cli.help import wrap
from rljax.cli.parser import Command, expect
from rljax.config import at_least, convert


def evaluate(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax evaluate RUN_DIR`: the returns of each policy over fresh episodes."""
    (run_dir,) = expect(positionals, 1, "evaluate", "RUN_DIR")
    num_episodes = at_least("num_episodes", options.get("num_episodes", 100), 1)
    seed = convert("seed", options["seed"], int) if "seed" in options else None
    greedy = not convert("sample", options.get("sample", "false"), bool)

    best = _flag(options, "best")

    from rljax.experiment.evaluation import (
        evaluate_states,
        in_suite,
        states_of,
        with_simulations,
    )

    if best and not greedy:
        raise ValueError("the best policies are kept for greedy actions: leave `--sample` out.")
    plan, states = states_of(run_dir, best=best)
    if "in" in options:
        plan = in_suite(plan, options["in"])
    plan = with_simulations(plan, options.get("num_simulations"))
    opponent = options.get("opponent")
    evaluation = evaluate_states(plan, states, num_episodes, seed, greedy, opponent)
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

    results.plot_results(positionals, output, options.get("metric"))
    print(output)


def watch(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax watch RUN_DIR`: one episode of a trained policy."""
    (run_dir,) = expect(positionals, 1, "watch", "RUN_DIR")

    from rljax.rendering import watch

    watch.watch(
        run_dir, run=options.get("run", 0), best=_flag(options, "best"),
        seed=options.get("seed", 0), max_steps=options.get("max_steps", 1000),
        output=options.get("output"),
    )  # fmt: skip


def play(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax play RUN_DIR`: a game against a trained policy, in the terminal."""
    (run_dir,) = expect(positionals, 1, "play", "RUN_DIR")

    from rljax.experiment import play as games

    first, run, seed = options.get("first", True), options.get("run", 0), options.get("seed", 0)
    games.play(
        run_dir, run=run, best=_flag(options, "best"), first=first, seed=seed,
        num_simulations=options.get("num_simulations"),
    )  # fmt: skip


def export(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax export RUN_DIR`: a policy in files that another program can use."""
    (run_dir,) = expect(positionals, 1, "export", "RUN_DIR")
    setting, seed = (at_least(name, options.get(name, 0), 0) for name in ("setting", "seed"))

    from rljax.experiment import export as exporting

    directory = exporting.export(
        run_dir, options.get("output") or Path(run_dir) / "policy", setting=setting, seed=seed,
        best=_flag(options, "best"),
    )  # fmt: skip
    print((directory / "README.txt").read_text(encoding="utf-8"))
    print(directory)


def _flag(options: dict[str, str], name: str) -> bool:
    return convert(name, options.get(name, "false"), bool)


def check_env(positionals: list[str], options: dict[str, str]) -> int:
    """`rljax check-env ENV`: a report; returns 1 if it has a fault."""
    (env_id,) = expect(positionals, 1, "check-env", "ENV")

    from rljax import envs

    report = envs.check_env(env_id, **training.env_params(options))
    lines = str(report).splitlines()
    print("\n".join(wrap(line, hanging="  ") for line in lines))
    return 0 if report.ok else 1


def list_all(positionals: list[str], options: dict[str, str]) -> None:
    """`rljax list`: all agents and environments, those of one suite, or the runs in a directory."""
    if any(map(listing.holds_runs, positionals)):
        return print(listing.runs(positionals))
    if positionals:
        (suite,) = expect(positionals, 1, "list", "SUITE or RUNS_DIR")
        return print(listing.environments(suite))
    about = convert("about", options.get("about", "false"), bool)
    print(listing.properties() if about else listing.agents_and_environments())


_BEST_HELP = "the best policy by the evaluation during training, not the final one (false)"
_SIMULATIONS_HELP = "simulations of each search of alphazero and muzero (as in training)"

COMMANDS = {
    "train": Command(
        training.train, "AGENT ENV | FILE.toml",
        "train an agent on an environment, many seeds at once", training.TRAIN_OPTIONS,
        takes_hyperparameters=True,
    ),
    "resume": Command(
        training.resume, "RUN_DIR",
        "continue a run from its last checkpoint, with identical results",
        training.RESUME_OPTIONS, takes_hyperparameters=True,
    ),
    "evaluate": Command(
        evaluate, "RUN_DIR", "evaluate the trained policies of a run on fresh episodes",
        {
            "num_episodes": "number of episodes of each policy (100)",
            "seed": "random seed of the environments (the seed of the run)",
            "sample": "sample actions instead of taking the most probable (false)",
            "best": _BEST_HELP,
            "in": "evaluate in the same environment of another suite: gymnasium",
            "opponent": "opponent in a game: random, minimax, mcts or mcts:N (random)",
            "num_simulations": _SIMULATIONS_HELP,
        },
    ),
    "plot": Command(
        plot, "RUN_DIR ...", "draw the learning curves of runs into one figure",
        {
            "metric": "metric on the vertical axis (return of the evaluation, or else of training)",
            "output": "figure file: .png, .pdf or .svg; also -o (RUN_DIR/curve.png)",
        },
    ),
    "compare": Command(
        comparing.compare, "RUN_DIR ...",
        "compare algorithms: intervals, normalized scores, probability of improvement",
        comparing.OPTIONS,
    ),
    "watch": Command(
        watch, "RUN_DIR", "show an episode of a trained policy: a GIF or video, or text for a grid",
        {
            "run": "index of the run to show; seeds vary fastest (0)",
            "best": _BEST_HELP,
            "seed": "random seed of the environment (0)",
            "max_steps": "maximum number of steps of the episode (1000)",
            "output": "animation file, .gif or .mp4; also -o (RUN_DIR/watch.gif)",
        },
    ),
    "play": Command(
        play, "RUN_DIR", "play a game of two players against a trained policy",
        {
            "run": "index of the run to play against; seeds vary fastest (0)",
            "best": _BEST_HELP,
            "first": "you move first; --no-first lets the policy move first (true)",
            "seed": "random seed of the policy (0)",
            "num_simulations": _SIMULATIONS_HELP,
        },
    ),
    "export": Command(
        export, "RUN_DIR", "write a policy into files that another program can use, without rljax",
        {
            "setting": "index of the setting of a sweep (0)",
            "seed": "index of the seed (0)",
            "best": _BEST_HELP,
            "output": "directory to write; also -o (RUN_DIR/policy)",
        },
    ),
    "check-env": Command(
        check_env, "ENV", "check an environment with random actions and measure its speed",
        {"env_params.NAME": "parameter NAME of the environment"},
    ),
    "list": Command(
        list_all, "[SUITE | RUNS_DIR]",
        "list all agents and environments, those of one suite, or the runs in a directory",
        {"about": "table of properties: on-policy, model-free, what is learned (false)"},
    ),
}  # fmt: skip
