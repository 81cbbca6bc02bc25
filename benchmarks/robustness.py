"""How many of 64 seeds each deep agent solves with its default options, and how bad its worst are.

    python benchmarks/robustness.py                             all agents
    python benchmarks/robustness.py dqn ppo --num-seeds 16      some of them, with fewer seeds
    python benchmarks/robustness.py --output DIR                writes robustness.md and the figure

Each row trains an agent in one environment with its defaults; options are given only where the
name of the row says so. A seed has solved the task if the mean return of 100 greedy episodes of its
final policy reaches the threshold. The seeds, 1000 to 1063 by default, were not used to choose any
default. Rows that are already in DIR are not trained again.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lib import harness, measure
from lib.harness import Table

sys.path.insert(0, str(harness.REPOSITORY))  # this checkout

import rljax
from rljax.results.figures import human


class Task(NamedTuple):
    """An environment of classic control.

    Attributes:
      env_id: id of the environment.
      threshold: return from which on the task counts as solved.
      floor: a policy with this return or a lower one has learned nothing.
    """

    env_id: str
    threshold: float
    floor: float


CARTPOLE = Task("CartPole-v1", 475, 30)
ACROBOT = Task("Acrobot-v1", -100, -495)
MOUNTAIN_CAR = Task("MountainCar-v0", -130, -199)
PENDULUM = Task("Pendulum-v1", -250, -1000)
MOUNTAIN_CAR_CONTINUOUS = Task("MountainCarContinuous-v0", 85, 10)
PARTIAL_PENDULUM = Task("partial/Pendulum-v1", -400, -1000)
DISCRETE, CONTINUOUS = (CARTPOLE, ACROBOT, MOUNTAIN_CAR), (PENDULUM, MOUNTAIN_CAR_CONTINUOUS)
TASKS = (*DISCRETE, *CONTINUOUS, PARTIAL_PENDULUM)

SHORT = {"total_timesteps": 20_000}  # by default a million steps with wide networks
# name of the row: the agent and its options, beside the defaults
AGENTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "ppo": ("ppo", {}), "dppo": ("dppo", {}), "trpo": ("trpo", {}), "a2c": ("a2c", {}),
    "a3c": ("a3c", {}), "impala": ("impala", {}), "reinforce": ("reinforce", {}),
    "actor_critic": ("actor_critic", {}), "dqn": ("dqn", {}),
    "dqn double": ("dqn", {"double": True}), "dqn dueling": ("dqn", {"dueling": True}),
    "dqn prioritized": ("dqn", {"prioritized": True}), "c51": ("c51", {}),
    "qr_dqn": ("qr_dqn", {}), "munchausen": ("munchausen", {}), "rainbow": ("rainbow", {}),
    "pqn": ("pqn", {}), "ddpg 20k": ("ddpg", SHORT), "td3 20k": ("td3", SHORT),
    "sac 20k": ("sac", SHORT), "discrete_sac 100k": ("discrete_sac", {"total_timesteps": 100_000}),
    "ppo gru": ("ppo", {"memory": "gru"}),
}  # fmt: skip
EPISODES, REPORTS = 100, 50


class Scores(NamedTuple):
    """The seeds of one row.

    Attributes:
      final: mean greedy return of the final policy of each seed.
      reached: environment steps of the first report whose training return reached the threshold,
        None if none did.
      steps: environment steps of the run.
      seconds: wall time, with compiling and evaluation.
      signs: index of each seed with a sign of failed learning (`run.health()`); None if unknown.
    """

    final: list[float]
    reached: list[int | None]
    steps: int
    seconds: float
    signs: list[int] | None = None


def tasks_of(name: str) -> tuple[Task, ...]:
    """Returns the tasks of a row: all whose actions the agent supports."""
    agent, options = AGENTS[name]
    if "memory" in options:
        return (PARTIAL_PENDULUM,)
    actions = rljax.AGENTS[agent].actions
    return DISCRETE * ("discrete" in actions) + CONTINUOUS * ("continuous" in actions)


def train(agent: str, options: Mapping[str, Any], task: Task, num_seeds: int, seed: int) -> Scores:
    """Trains all seeds in one call."""
    start = time.perf_counter()
    run = rljax.train(
        agent, task.env_id, num_seeds=num_seeds, seed=seed, eval_episodes=EPISODES,
        num_reports=REPORTS, progress=False, **options,
    )  # fmt: skip
    (final,) = run.scores(evaluated=True)
    reached = []
    for returns in run.returns:
        reports = np.flatnonzero(returns >= task.threshold)
        reached.append(int(run.steps[reports[0]]) if len(reports) else None)
    seconds = time.perf_counter() - start
    signs = [sign["seed"] for sign in run.health()]
    return Scores(final.tolist(), reached, int(run.steps[-1]), seconds, signs)


def row(name: str, task: Task, scores: Scores) -> list[str]:
    """Returns the cells of a row of the table."""
    final, reached = np.array(scores.final), scores.reached
    quantiles = np.quantile(final, (0.0, 0.05, 0.25, 0.5))
    signs = "-"
    if scores.signs is not None:
        signs = f"{len(scores.signs)}, {(final[scores.signs] >= task.threshold).sum()}"
    late = np.median([np.inf if steps is None else steps for steps in reached])
    return [
        task.env_id, name, human(scores.steps), f"{(final >= task.threshold).sum()}/{len(final)}",
        str((final <= task.floor).sum()), *(f"{x:.4g}" for x in quantiles),
        human(late) if np.isfinite(late) else "-", signs, f"{scores.seconds:.0f}",
    ]  # fmt: skip


def overview(results: Mapping[tuple[str, str], Scores]) -> Table:
    """Returns a table of agents and tasks: the seeds that are solved, and the lowest return."""
    tasks = [task for task in TASKS if any(env_id == task.env_id for env_id, _ in results)]
    table = Table(
        "All tasks", "Seeds that reach the threshold, and the lowest return of a seed.",
        "agent", *(f">{task.env_id}" for task in tasks),
    )  # fmt: skip
    for name in AGENTS:
        cells = []
        for task in tasks:
            final = np.array(
                results[task.env_id, name].final if (task.env_id, name) in results else []
            )
            solved = f"{(final >= task.threshold).sum()}/{len(final)}, "
            cells.append(solved + f"{final.min():.4g}" if len(final) else "")
        if any(cells):
            table.add(name, *cells)
    return table


def draw(results: Mapping[tuple[str, str], Scores], path: Path) -> None:
    """Draws the final return of every seed, one panel for each task."""
    from matplotlib.figure import Figure

    from rljax.results.figures import GREY, PALETTE

    tasks = [task for task in TASKS if any(env_id == task.env_id for env_id, _ in results)]
    rows = [[name for name in AGENTS if (task.env_id, name) in results] for task in tasks]
    figure = Figure(figsize=(2.6 * len(tasks) + 1, 1.2 + 0.22 * max(map(len, rows))))
    for axis, task, names in zip(
        np.ravel(figure.subplots(1, len(tasks))), tasks, rows, strict=True
    ):
        for height, name in enumerate(reversed(names)):
            final = np.array(results[task.env_id, name].final)
            jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(final))
            color = np.where(final >= task.threshold, PALETTE[0], PALETTE[1])
            axis.scatter(final, height + jitter, s=4, c=color, alpha=0.6, linewidths=0)
        axis.axvline(task.threshold, color=GREY, linewidth=0.8, linestyle="--")
        axis.set_yticks(range(len(names)), reversed(names), fontsize=7)
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.tick_params(axis="x", labelsize=7)
        axis.set_title(task.env_id, fontsize=8)
        axis.set_xlabel("return", fontsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agents", nargs="*", help="rows (all): " + ", ".join(AGENTS))
    parser.add_argument("--tasks", default="", help="comma-separated ids of environments (all)")
    parser.add_argument("--num-seeds", type=int, default=64, help="seeds of each row (64)")
    parser.add_argument("--seed", type=int, default=1000, help="first seed (1000)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="directory for the results")
    parser.add_argument("--saved", action="store_true", help="only the rows that are in DIR")
    options = parser.parse_args()
    if unknown := set(options.agents) - set(AGENTS):
        parser.error(f"unknown row {unknown.pop()!r}: choose from {', '.join(AGENTS)}.")
    chosen = harness.names(options.tasks) or [task.env_id for task in TASKS]
    table = Table(
        "Seeds that the defaults solve",
        f"Mean return of {EPISODES} greedy episodes of each seed's final policy: the number of "
        "seeds that reach the threshold, and quantiles over seeds. `reached` is the median of the "
        "environment steps until the training return reaches the threshold. `signs` counts the "
        "seeds that `run.health()` names, and those of them that are solved.",
        "environment", "agent", ">steps", ">solved", ">at the floor", ">minimum", ">5 %",
        ">25 %", ">median", ">reached", ">signs", ">seconds",
    )  # fmt: skip
    table.remarks += [
        f"{task.env_id}: solved at {task.threshold:g}, floor at {task.floor:g}" for task in TASKS
    ]
    results: dict[tuple[str, str], Scores] = {}
    name = f"robustness-{options.seed}-{options.num_seeds}.json"
    cache = options.output and options.output / name
    if cache and cache.is_file():
        saved = json.loads(cache.read_text(encoding="utf-8"))
        results = {(env_id, name): Scores(*scores) for env_id, name, scores in saved}
    for task in TASKS:
        for name, (agent, given) in AGENTS.items():
            if options.agents and name not in options.agents:
                continue
            if task not in tasks_of(name) or task.env_id not in chosen:
                continue
            key = task.env_id, name
            if key not in results and options.saved:
                continue
            if key not in results:
                results[key] = train(agent, given, task, options.num_seeds, options.seed)
                if cache:
                    cache.parent.mkdir(parents=True, exist_ok=True)
                    cache.write_text(
                        json.dumps([[*key, scores] for key, scores in results.items()])
                    )
            table.add(*row(name, task, results[key]))
    line = harness.machine(measure.facts())
    tables = [overview(results), table]
    print(f"\n{line}\n\n" + "\n\n".join(each.text() for each in tables))
    if options.output:
        harness.write(options.output / "robustness.md", "Robustness", line, tables)
        draw(results, options.output / "robustness.png")


if __name__ == "__main__":
    main()
