"""How the speed of training changes with seeds, environments, network width and replay capacity.

    python benchmarks/costs.py --output benchmarks/results       all sizes, 20 minutes on two cores
    python benchmarks/costs.py seeds units --seconds 1           two of the studies, short runs

Each number is that of a whole call of `rljax.train` on CartPole-v1 (SAC: Pendulum-v1) with compiled
programs, in a process of its own. With --output, costs.md and costs.png are written there, with the
studies that were measured before.
"""

import argparse
import json
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lib import harness
from lib.harness import Failed, Table, span
from peers import common

sys.path.insert(0, str(harness.REPOSITORY))  # this checkout


class Line(NamedTuple):
    """One line of a panel.

    Attributes:
      name: label in the figure.
      agent: name of the agent.
      field: option that grows; "units" are those of both hidden layers.
      values: its values.
      options: further options, beside the defaults.
    """

    name: str
    agent: str
    field: str
    values: Sequence[int]
    options: Mapping[str, Any] = {}


class Study(NamedTuple):
    """One panel: a caption and its lines."""

    caption: str
    lines: Sequence[Line]

    def sizes(self) -> Iterator[tuple[Line, int]]:
        """Yields each line with each of its values."""
        return ((line, value) for line in self.lines for value in line.values)


UNITS = (32, 64, 128, 256, 512, 1024)
CAPACITIES = (10**3, 10**4, 10**5, 10**6)
SHORT_ROLLOUT = {"num_steps": 32}  # so that 8192 environments fit into memory
STUDIES = {
    "seeds": Study("seeds", (
        Line("PPO", "ppo", "num_seeds", (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        Line("DQN", "dqn", "num_seeds", (1, 2, 4, 8, 16, 32, 64)),
    )),
    "environments": Study("environments", (
        Line("PPO, 32 steps", "ppo", "num_envs", (8, 32, 128, 512, 2048, 8192), SHORT_ROLLOUT),
        Line("DQN", "dqn", "num_envs", (1, 4, 16, 64, 256)),
    )),
    "units": Study("units of each hidden layer", (
        Line("PPO", "ppo", "units", UNITS), Line("DQN", "dqn", "units", UNITS),
        Line("SAC", "sac", "units", UNITS[:-1]),
    )),
    "capacity": Study("capacity of the replay buffer", (
        Line("DQN", "dqn", "buffer_size", CAPACITIES),
        Line("DQN, prioritized", "dqn", "buffer_size", CAPACITIES, {"prioritized": True}),
    )),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("studies", nargs="*", metavar="STUDY", help=f"{', '.join(STUDIES)} (all)")
    add("--seconds", type=float, default=3.0, help="approximate length of a timed call (3)")
    add("--repeats", type=int, default=3, help="timed calls of each size, of which the median (3)")
    add("--timeout", type=float, default=600, help="seconds per process (600)")
    add("--output", type=Path, metavar="DIR", help="directory for costs.md and costs.png")
    add("--saved", action="store_true", help="only draws what is in DIR")
    add("--measure", metavar="JSON", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(**json.loads(options.measure))
        return 0
    if unknown := set(options.studies) - set(STUDIES):
        parser.error(f"unknown study {unknown.pop()!r}: choose from {', '.join(STUDIES)}.")
    table = Table(
        "Speed and size",
        "Environment steps of all seeds together, per second and per CPU second of all threads, in "
        f"whole calls of `rljax.train` with compiled programs; medians of {options.repeats} calls "
        f"of about {options.seconds:g} s. Memory is the highest of the process.",
        "study", ">size", "agent", ">steps/s", ">min - max", ">steps/CPU s", ">memory",
        ">compile s",
    )  # fmt: skip
    answers: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    cache = options.output and options.output / "costs.json"
    saved = json.loads(cache.read_text(encoding="utf-8")) if cache and cache.is_file() else []
    known = {(name, label, value): answer for name, label, value, answer in saved}
    for name, study in STUDIES.items():
        for line, value in study.sizes():
            key = name, line.name, value
            try:
                if name in (options.studies or STUDIES) and not options.saved:
                    known[key] = ask(line, value, options)
            except Failed as failure:
                table.add(name, f"{value:,}", line.name, "failed")
                table.remarks.append(f"{line.name}, {name} {value:,} failed: {failure}")
                continue
            if key not in known:
                continue
            if cache:
                cache.parent.mkdir(parents=True, exist_ok=True)
                rows = [[*key, answer] for key, answer in known.items()]
                cache.write_text(json.dumps(rows), encoding="utf-8")
            answer = answers.setdefault((name, line.name), {})[value] = known[key]
            table.add(
                name, f"{value:,}", line.name, *span(answer["steps_per_second"]),
                span(answer["steps_per_cpu_second"])[0], f"{answer['memory'] / 2**30:.2f} GiB",
                f"{answer['compile_seconds']:.1f}",
            )  # fmt: skip
    machine = harness.machine(next(iter(known.values()))) if known else ""
    print(f"\n{machine}\n\n{table.text()}")
    if options.output:
        harness.write(options.output / "costs.md", "Speed and size", machine, [table])
        draw(answers, options.output / "costs.png")
    return int(bool(table.remarks))


def ask(line: Line, value: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measures one size in a process of its own."""
    request = {
        "agent": line.agent, "field": line.field, "value": value, "options": dict(line.options),
        "seconds": options.seconds, "repeats": options.repeats,
    }  # fmt: skip
    program = [sys.executable, "-W", "ignore", Path(__file__).resolve()]
    return harness.ask(program, options.timeout, measure=json.dumps(request))


def measure(
    agent: str, field: str, value: int, options: dict[str, Any], seconds: float, repeats: int
) -> None:
    """Times whole calls of `rljax.train`; prints one line of JSON."""
    from lib.measure import facts

    import rljax

    options |= {"hidden_sizes": (value, value)} if field == "units" else {field: value}
    env_id = "Pendulum-v1" if agent == "sac" else "CartPole-v1"

    def train(total_timesteps):
        return rljax.train(
            agent, env_id, progress=False, eval_episodes=0, total_timesteps=total_timesteps,
            **options,
        )  # fmt: skip

    timesteps = least = max(3_000, options.get("num_envs", 1) * options.get("num_steps", 1))
    with common.Clock() as compiling:
        result = train(timesteps)
    compiling.wall = result.compile_seconds
    while True:  # the program serves any number of steps
        with common.Clock() as clock:
            result = train(timesteps)
        if clock.wall > seconds / 3:
            break
        timesteps *= 3
    timesteps = max(least, round(timesteps * seconds / clock.wall))
    clocks = []
    for _ in range(repeats):
        with common.Clock() as clock:
            result = train(timesteps)
        clocks.append(clock)
    steps = options.get("num_seeds", 1) * int(result.steps[-1])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    common.answer(steps, clocks, compiling, memory=memory, **facts())


def draw(answers: Mapping[tuple[str, str], Mapping[int, dict[str, Any]]], path: Path) -> None:
    """Draws steps per second over the size, one panel for each study."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    from rljax.results.figures import PALETTE

    names = [name for name in STUDIES if any(name == study for study, _ in answers)]
    figure = Figure(figsize=(2.9 * len(names) + 0.3, 2.8))
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    colors = dict(zip(("PPO", "DQN", "SAC"), PALETTE, strict=False))
    plain = FuncFormatter(lambda x, _: f"{x:g}")
    number = FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 2000 else f"{x:g}")
    for axis, name in zip(axes, names, strict=True):
        for (study, label), points in answers.items():
            if study == name:
                speeds = [np.median(x["steps_per_second"]) for x in points.values()]
                color, style = colors[label[:3]], "--" if "prioritized" in label else "-"
                axis.plot(list(points), speeds, "o", ls=style, color=color, label=label, ms=3)
        axis.set_xscale("log", base=10 if name == "capacity" else 2)
        axis.set_yscale("log")
        axis.xaxis.set_major_formatter(number if name == "capacity" else plain)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(number)
        axis.minorticks_off()
        axis.set_xlabel(STUDIES[name].caption, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3, linewidth=0.5)
        axis.legend(fontsize=7, frameon=False)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_ylabel("environment steps per second", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
