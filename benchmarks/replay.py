"""Time of prioritized replay beside flashbax and cpprb, in microseconds a call.

    python benchmarks/replay.py                              rljax alone
    python benchmarks/replay.py --peers flashbax,cpprb       beside them, by turns
    python benchmarks/replay.py --output replay.md

A cycle adds 64 transitions, samples 256 and gives those new priorities. See README.md.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lib import harness
from lib.harness import Failed, Table, span

PEERS = {"flashbax": "flashbax_replay.py", "cpprb": "cpprb_replay.py"}
CAPACITIES = {"cycle": (2**14, 2**17, 2**20), "sample": (2**12, 2**14, 2**16, 2**18, 2**20)}
TITLES = {"cycle": "Add 64, sample 256, reprioritize 256", "sample": "Sample 256"}


def main() -> int:
    options = parse()
    programs, tables = commands(options), []
    for operation in options.only:
        tables.append(replay_table(operation, programs, options))
        harness.write(options.output, "Replay", options.machine, tables)
    print("\n" + options.machine)
    for table in tables:
        print("\n" + table.text())
    return int(any(table.remarks for table in tables))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = harness.names
    parser.add_argument(
        "--only", type=names, default=tuple(CAPACITIES), help="operations: cycle,sample (both)"
    )
    parser.add_argument(
        "--peers", type=names, default=(), help="other libraries: " + ",".join(PEERS)
    )
    parser.add_argument("--capacity", type=int, help="one capacity instead of the usual ones")
    parser.add_argument("--repeats", type=int, default=5, help="processes of each library (5)")
    parser.add_argument("--calls", type=int, default=3000, help="calls in one compiled loop (3000)")
    parser.add_argument("--output", metavar="FILE.md", help="markdown file for the tables")
    parser.add_argument("--timeout", type=float, default=300, help="seconds per process (300)")
    parser.add_argument(
        "--venvs", type=Path, default=harness.BENCHMARKS / ".venvs",
        help="directory of the peers' virtual environments",
    )  # fmt: skip
    parser.add_argument("--jax-extra", default="", help="extra of the peers' JAX, such as cuda12")
    parser.add_argument(
        "--pip-options", type=shlex.split, default=[], help="further options of pip install"
    )
    options = parser.parse_args()
    for name, given, known in (
        ("only", options.only, CAPACITIES),
        ("peers", options.peers, PEERS),
    ):
        if unknown := set(given) - set(known):
            parser.error(f"--{name} has no {unknown.pop()}: choose from {','.join(known)}.")
    options.machine = ""
    return options


def commands(options: argparse.Namespace) -> dict[str, list[Any]]:
    """Returns the command of each library; missing virtual environments are made."""
    programs: dict[str, list[Any]] = {
        "rljax": [sys.executable, "-W", "ignore", harness.LIB / "measure_replay.py"]
    }
    for name in options.peers:
        python = harness.environment(name, options.venvs, options.jax_extra, options.pip_options)
        programs[name] = [python, "-W", "ignore", harness.PEERS / PEERS[name]]
    return programs


def replay_table(
    operation: str, programs: dict[str, list[Any]], options: argparse.Namespace
) -> Table:
    """Times one operation at every capacity, the libraries by turns."""
    table = Table(
        TITLES[operation],
        f"Microseconds a call (CPU time on a CPU), {options.calls} calls in one compiled loop. "
        f"Processes by turns ({options.repeats}), each the median of five loops. The ratio is "
        "rljax over the other library, turn by turn.",
        "capacity", "program", ">us", ">min - max", ">ratio", ">min - max",
    )  # fmt: skip
    for capacity in (options.capacity,) if options.capacity else CAPACITIES[operation]:
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(options.repeats):
            for name in list(times):
                try:
                    measured = harness.ask(
                        [*programs[name], operation], options.timeout, capacity=capacity,
                        calls=options.calls,
                    )  # fmt: skip
                except Failed as failure:
                    table.remarks.append(f"{name}, {capacity} failed: {failure}")
                    print(failure, file=sys.stderr)
                    del times[name]
                    continue
                times[name].append(float(np.median(measured["microseconds"])))
                options.machine = options.machine or harness.machine(measured)
        for name, values in times.items():
            ratios = [a / b for a, b in zip(times.get("rljax", ()), values, strict=False)]
            is_peer = name != "rljax" and ratios
            cells = span(ratios, lambda x: f"{x:.2f}") if is_peer else ["-", "-"]
            table.add(f"{capacity:,}", name, *span(values, microseconds), *cells)
    return table


def microseconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
