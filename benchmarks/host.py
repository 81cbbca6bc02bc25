"""Environments on the host: ways to step them, PPO beside SB3, and what Breakout learns.

    python benchmarks/host.py                              all sections
    python benchmarks/host.py --only ways,ppo --output host.md
    python benchmarks/host.py --only learning --num-seeds 4

Needs gymnasium and ale-py, and EnvPool for its rows. README.md explains the columns.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lib import harness
from lib.harness import Failed, Table, rate, span

sys.path.insert(0, str(harness.REPOSITORY))  # this checkout

PYTHON = (sys.executable, "-W", "ignore")
WAYS = (
    "emulator", "buffer", "pure", "ordered", "unordered", "loop", "xla", "envpool", "envpool_xla"
)  # fmt: skip
NUM_ENVS = 8


class Case(NamedTuple):
    """An environment under its names in the three libraries.

    Attributes:
      ours: id in rljax.
      original: id in lib/measure_host.py.
      sb3: id for Stable-Baselines3.
      target: ratio to SB3 that is expected, or 0.
    """

    ours: str
    original: str
    sb3: str
    target: float = 0.0


CASES = (
    Case("gymnasium/CartPole-v1", "CartPole-v1", "CartPole-v1", 5.0),
    Case("atari/Breakout", "Breakout", "BreakoutNoFrameskip-v4"),
)


def main() -> int:
    options = parse()
    try:
        known = harness.ask([*PYTHON, harness.LIB / "measure.py", "random"], 300, seconds=0.05)
    except Failed as failure:
        sys.exit(f"rljax does not run here: {failure}")
    line, tables, failed = harness.machine(known), [], 0
    for name in options.only:
        table = SECTIONS[name](options)
        tables.append(table)
        failed += any("failed" in row or "MISSED" in row for row in table.rows)
        harness.write(options.output, "Environments on the host", line, tables)
    print("\n" + line)
    for table in tables:
        print("\n" + table.text())
    return int(failed > 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", type=harness.names, default=tuple(SECTIONS), help=",".join(SECTIONS)
    )
    parser.add_argument("--repeats", type=int, default=3, help="pairs, or repetitions (3)")
    parser.add_argument("--num-seeds", type=int, default=4, help="seeds of `learning` (4)")
    parser.add_argument("--timesteps", type=int, default=100_000, help="steps of `learning`")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of each policy (20)")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds per process (3600)")
    parser.add_argument("--output", metavar="FILE.md", help="markdown file for the tables")
    parser.add_argument(
        "--venvs", type=Path, default=harness.BENCHMARKS / ".venvs",
        help="directory of the peers' virtual environments",
    )  # fmt: skip
    parser.add_argument(
        "--pip-options", type=shlex.split, default=[], help="further options of pip install"
    )
    options = parser.parse_args()
    if unknown := set(options.only) - set(SECTIONS):
        parser.error(f"--only has no {unknown.pop()}: choose from {','.join(SECTIONS)}.")
    return options


def ways_table(options: argparse.Namespace) -> Table:
    """Random actions through each way of calling the same environments."""
    table = Table(
        "Ways to step environments on the host",
        f"{NUM_ENVS} environments, random actions, environment steps per second; `emulator` is the "
        "vector environment alone. rljax steps by `buffer`.",
        "environment", "way", ">steps/s", ">min - max", ">of emulator",
    )  # fmt: skip
    for case in CASES:
        alone = None
        for way in WAYS:
            if way == "xla" and case.original == "CartPole-v1":
                continue
            command = [*PYTHON, harness.LIB / "measure_host.py", way]
            try:
                measured = harness.ask(
                    command, options.timeout, env_id=case.original, num_envs=NUM_ENVS,
                    runs=options.repeats,
                )  # fmt: skip
            except Failed as failure:
                table.add(case.ours, way, "failed")
                table.remarks.append(f"{case.ours}, {way}: {failure}")
                continue
            rates = measured["steps_per_second"]
            alone = alone or float(np.median(rates))
            table.add(case.ours, way, *span(rates), f"{np.median(rates) / alone:.2f}")
    return table


def ppo_table(options: argparse.Namespace) -> Table:
    """The loop of PPO and of a random policy beside the emulator alone and PPO of SB3, by turns."""
    table = Table(
        "PPO on the host",
        f"{NUM_ENVS} environments x 128 steps, 4 epochs x 4 minibatches; {options.repeats} turns "
        "of one process each. `emulator` is the vector environment alone in Python; `random` is "
        "the loop of `rljax.train` with a random policy that learns nothing.",
        "environment", ">emulator", ">random", ">of emulator", ">min - max", ">PPO", ">SB3",
        ">PPO of SB3", ">min - max", "verdict",
    )  # fmt: skip
    shape = {"num_envs": NUM_ENVS, "num_steps": 128}
    python = harness.environment("sb3_host", options.venvs, "", options.pip_options)
    for case in CASES:
        sb3_steps = (2 if case.original == "Breakout" else 20) * NUM_ENVS * 128
        commands = {
            "emulator": (
                [*PYTHON, harness.LIB / "measure_host.py", "emulator"],
                {"env_id": case.original, "num_envs": NUM_ENVS},
            ),
            **{
                name: (
                    [*PYTHON, harness.LIB / "measure.py", name], {"env_id": case.ours} | shape
                )
                for name in ("random", "ppo")
            },
            "sb3": (
                [python, "-W", "ignore", harness.PEERS / "sb3_ppo.py"],
                {"env_id": case.sb3, "num_envs": NUM_ENVS, "timesteps": sb3_steps},
            ),
        }  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in commands}
        try:
            for _ in range(options.repeats):
                for name, (command, arguments) in commands.items():
                    measured = harness.ask(command, options.timeout, **arguments)
                    rates[name].append(float(np.median(measured["steps_per_second"])))
        except Failed as failure:
            table.add(case.ours, "failed")
            table.remarks.append(f"{case.ours}: {failure}")
            continue
        of_emulator = np.divide(rates["random"], rates["emulator"]).tolist()
        of_sb3 = np.divide(rates["ppo"], rates["sb3"]).tolist()
        medians = {name: rate(float(np.median(values))) for name, values in rates.items()}
        missed = np.median(of_sb3) < case.target
        verdict = f"{'MISSED' if missed else 'reached'}: {case.target:g}" if case.target else ""
        table.add(
            case.ours, medians["emulator"], medians["random"], *span(of_emulator, "{:.2f}".format),
            medians["ppo"], medians["sb3"], *span(of_sb3, "{:.2f}".format), verdict,
        )  # fmt: skip
    return table


def learning_table(options: argparse.Namespace) -> Table:
    """Returns of PPO on Breakout after a short training, beside those of random actions."""
    from lib import measure

    import rljax
    from rljax.results import statistics

    seeds, episodes = options.num_seeds, options.episodes
    limit = {"max_episode_steps": 2000}
    table = Table(
        "Learning Breakout",
        f"Unclipped returns of {episodes} episodes of at most 2,000 steps, of {seeds} seeds; mean "
        "and 95 % stratified-bootstrap interval. Policies sample their actions.",
        "policy", ">steps", ">mean", ">95 % interval", "seeds", ">seconds",
    )  # fmt: skip
    settings = {
        "ppo": {"num_envs": NUM_ENVS, "num_steps": 128, "num_minibatches": 4, "update_epochs": 4,
                "learning_rate": 2.5e-4, "clip_eps": 0.1, "ent_coef": 0.01, "anneal_lr": True,
                "normalize_obs": False, "normalize_reward": False},
        "random": {"num_envs": NUM_ENVS, "num_steps": 128},
    }  # fmt: skip
    for name, config in settings.items():
        agent: Any = "ppo" if name == "ppo" else measure.random_policy()
        steps = options.timesteps if name == "ppo" else NUM_ENVS * 128
        run = rljax.train(
            agent, "atari/Breakout", num_seeds=seeds, total_timesteps=steps, env_params=limit,
            eval_episodes=0, **config,
        )  # fmt: skip
        pieces = {} if name == "ppo" else {"agent": agent}
        returns = rljax.evaluate(run, episodes, greedy=False, **pieces)["returns"]
        low, high = statistics.stratified_bootstrap(returns.T, statistics.mean)
        table.add(
            name, f"{int(run.steps[-1]):,}", f"{returns.mean():.2f}", f"[{low:.2f}, {high:.2f}]",
            ", ".join(f"{x:.1f}" for x in returns.mean(axis=-1)), f"{run.seconds:.0f}",
        )  # fmt: skip
    return table


SECTIONS = {"ways": ways_table, "ppo": ppo_table, "learning": learning_table}

if __name__ == "__main__":
    sys.exit(main())
