"""Training speed of TD3, SAC and PPO on Pendulum-v1 beside rejax and RLtools, and that of DDPG.

    python benchmarks/continuous.py                      all cases, three pairs of each
    python benchmarks/continuous.py --peers rltools --agents sac --repeats 5

The configurations are in peers/continuous_common.py. A rate is that of a whole run, compiling
excluded; for rljax that of a whole call of `rljax.train`. The exit code is 1 if a ratio is below
the one that its case expects.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lib import harness
from lib.harness import Failed, Table, rate, span
from peers import common, continuous_common


class Case(NamedTuple):
    """One row of the table.

    Attributes:
      peer: library to compare with, or "-" for rljax alone.
      agent: name of the algorithm.
      num_seeds: seeds side by side.
      width: units of each of the two hidden layers.
      expected: smallest ratio of the rates.
      second: second of the rates that are compared: "wall" or "CPU", of all threads.
      cores: cores that the process of rljax may use; 0 for all.
    """

    peer: str
    agent: str
    num_seeds: int
    width: int = 64
    expected: float = 0.0
    second: str = "wall"
    cores: int = 0


CASES = (
    *(Case("rejax", agent, 1, 64, 3.0) for agent in ("td3", "sac")),
    *(Case("rejax", agent, 8, 64, 4.0) for agent in ("td3", "sac")),
    *(Case("rejax", agent, 1, 256, 1.5) for agent in ("td3", "sac")),
    *(Case("rltools", agent, 1, 64, 0.8, "CPU", 1) for agent in ("td3", "sac")),
    *(Case("rltools", agent, 1, 64, 0.8) for agent in ("td3", "sac")),
    *(Case("rltools", agent, 8, 64, 1.0) for agent in ("td3", "sac")),
    Case("rltools", "ppo", 1, 32, 0.8, "CPU", 1), Case("rltools", "ppo", 1, 32, 0.8),
    Case("-", "ddpg", 1), Case("-", "ddpg", 8),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, names = parser.add_argument, harness.names
    add("--agents", default=("td3", "sac", "ppo", "ddpg"), type=names,
        help="agents: td3,sac,ppo,ddpg (all)")  # fmt: skip
    add("--peers", default=("rejax", "rltools", "-"), type=names,
        help="cases: beside rejax,rltools, or - for rljax alone (all)")  # fmt: skip
    add("--repeats", type=int, default=3, help="pairs of processes of each case (3)")
    add("--timesteps", type=int, help="environment steps of a seed (those of the configuration)")
    add("--pip-options", default="", help="arguments of pip, in one string, for the peers")
    add("--venvs", type=Path, default=harness.BENCHMARKS / ".venvs", help="directory of the "
        "peers' virtual environments")  # fmt: skip
    add("--timeout", type=float, default=1800, help="seconds per process (1800)")
    add("--output", metavar="FILE.md", help="markdown file for the table")
    add("--measure", nargs=6, metavar="VALUE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        peer, agent, *sizes = options.measure
        measure(peer, agent, *map(int, sizes))
        return 0
    return compare(options)


def measure(peer: str, agent: str, num_seeds: int, width: int, timesteps: int, cores: int) -> None:
    """Times whole calls of `rljax.train`; prints one line of JSON."""
    if cores and hasattr(os, "sched_setaffinity"):  # before JAX starts a thread for each core
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    from lib.measure import processor

    import rljax

    stock = continuous_common.STOCK[peer][agent] | {"hidden_sizes": (width, width)}

    def train():
        return rljax.train(
            agent, continuous_common.ENV_ID, num_seeds=num_seeds, progress=False,
            eval_episodes=0, total_timesteps=timesteps, **stock,
        )  # fmt: skip

    with common.Clock() as compiling:
        result = train()
    compiling.wall = result.compile_seconds
    with common.Clock() as clock:
        result = train()
    final_return = float(rljax.evaluate(result, 100)["returns"].mean())
    common.answer(
        num_seeds * int(result.steps[-1]), [clock], compiling, final_return=final_return,
        versions=common.versions("jax", "flax", "gymnax"), processor=processor(),
        **common.jax_device(),
    )  # fmt: skip


def compare(options: argparse.Namespace) -> int:
    """Measures pairs of processes, rljax and the peer by turns. Returns the exit code."""
    table = Table(
        "Continuous control",
        f"Pendulum-v1, pairs of processes ({options.repeats}), one after the other. Steps of all "
        "seeds together, per wall second and per CPU second of all threads; the ratio is that of "
        "the rates named by `per`. Compile times are excluded.",
        "agent", "beside", ">units", ">seeds", ">cores", ">rljax /wall s", ">peer /wall s",
        ">rljax /CPU s", ">peer /CPU s", "per", ">ratio", ">min - max", ">expected",
        ">rljax return", ">peer return",
    )  # fmt: skip
    failed, line = 0, ""
    for case in CASES:
        if case.agent not in options.agents or case.peer not in options.peers:
            continue
        timesteps = options.timesteps or continuous_common.timesteps(case.peer, case.agent)
        pairs = []
        try:
            for _ in range(options.repeats):
                ours = ask_rljax(case, timesteps, options)
                pairs.append((ours, ask_peer(case, timesteps, options)))
        except Failed as failure:
            failed += 1
            table.remarks.append(f"{case.agent} beside {case.peer} failed: {failure}")
        if pairs:
            line = line or harness.machine(pairs[0][0])
            failed += add_row(table, case, pairs)
    print(line, table.text(), sep="\n\n")
    harness.write(options.output, "Continuous control", line, [table])
    return int(failed > 0)


def add_row(table: Table, case: Case, pairs: list[tuple[dict[str, Any], Any]]) -> bool:
    """Adds the row of a case to the table. Returns whether its ratio is below `case.expected`."""
    names = {"wall": "steps_per_second", "CPU": "steps_per_cpu_second"}
    ours, theirs = ([x for x in side if x] for side in zip(*pairs, strict=True))
    rates = [
        rate(float(np.median([x[name][0] for x in side]))) if side else "-"
        for name in names.values() for side in (ours, theirs)
    ]  # fmt: skip
    returns = [f"{np.mean([x['final_return'] for x in s]):.0f}" if s else "-"
               for s in (ours, theirs)]  # fmt: skip
    name, judged, below = names[case.second], ["-"] * 4, False
    if theirs:
        ratios = [x[name][0] / y[name][0] for x, y in zip(ours, theirs, strict=True)]
        judged = [case.second, *span(ratios, lambda x: f"{x:.2f}"), f"{case.expected:g}"]
        below = bool(np.median(ratios) < case.expected)
    sizes = map(str, (case.width, case.num_seeds, case.cores or available_cores()))
    table.add(case.agent, case.peer, *sizes, *rates, *judged, *returns)
    return below


def ask_rljax(case: Case, timesteps: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measures rljax in a process of its own."""
    sizes = (str(size) for size in (case.num_seeds, case.width, timesteps, case.cores))
    program = [sys.executable, "-W", "ignore", Path(__file__).resolve(), "--measure"]
    return harness.ask([*program, case.peer, case.agent, *sizes], options.timeout)


def ask_peer(case: Case, timesteps: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """Measures the other library in a process of its own; returns None if there is none."""
    if case.peer == "-":
        return None
    python = harness.environment(case.peer, options.venvs, "", options.pip_options.split())
    program = [python, "-W", "ignore", harness.PEERS / f"{case.peer}_continuous.py"]
    more = {"width": case.width}
    if case.peer == "rltools":
        more = {"processes": min(available_cores(), case.num_seeds)}
    return harness.ask(
        program, options.timeout, algorithm=case.agent, num_seeds=case.num_seeds,
        timesteps=timesteps, **more,
    )  # fmt: skip


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
