"""How long prioritized replay takes, beside flashbax and cpprb, in microseconds a call.

    python benchmarks/replay.py                              rljax alone
    python benchmarks/replay.py --peers flashbax,cpprb       beside them, by turns
    python benchmarks/replay.py --output replay.md

A cycle adds 64 transitions, draws 256 and gives those new priorities. See README.md.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import Failed, Table, span

PEERS = {"flashbax": "flashbax_replay.py", "cpprb": "cpprb_replay.py"}
CAPACITIES = {"cycle": (2**14, 2**17, 2**20), "sample": (2**12, 2**14, 2**16, 2**18, 2**20)}


def main() -> int:
    options = parse()
    programs, failed = commands(options), []
    tables, line = [], ""
    for what in options.only:
        table = Table(
            {"cycle": "Add 64, draw 256, reprioritize 256", "sample": "Draw 256"}[what],
            f"Microseconds a call (of CPU time, on a CPU), {options.calls} in one go; processes "
            f"by turns ({options.repeats}), each the median of five goes. The ratio is rljax over "
            "the other, turn by turn.",
            "capacity", "program", ">us", ">min - max", ">ratio", ">min - max",
        )  # fmt: skip
        tables.append(table)
        for capacity in CAPACITIES[what]:
            taken: dict[str, list[float]] = {name: [] for name in programs}
            for _ in range(options.repeats):
                for name in list(taken):
                    try:
                        found = harness.ask(
                            [*programs[name], what], options.timeout, capacity=capacity,
                            calls=options.calls,
                        )  # fmt: skip
                    except Failed as failure:
                        failed.append(name)
                        table.remarks.append(f"{name}, {capacity} failed: {failure}")
                        print(failure, file=sys.stderr)
                        del taken[name]
                        continue
                    taken[name].append(float(np.median(found["microseconds"])))
                    line = line or harness.machine(found)
            for name, values in taken.items():
                ratios = [a / b for a, b in zip(taken.get("rljax", ()), values, strict=False)]
                other = name != "rljax" and ratios
                cells = span(ratios, lambda x: f"{x:.2f}") if other else ["-", "-"]
                table.add(f"{capacity:,}", name, *span(values, microseconds), *cells)
        harness.write(options.output, "Replay", line, tables)
    print("\n" + line)
    for table in tables:
        print("\n" + table.text())
    return int(bool(failed))


def microseconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words = {"type": lambda text: tuple(filter(None, text.split(",")))}
    parser.add_argument("--only", **words, default=tuple(CAPACITIES), help="of cycle,sample")
    parser.add_argument("--peers", **words, default=(), help="of " + ",".join(PEERS))
    parser.add_argument("--repeats", type=int, default=5, help="turns (5)")
    parser.add_argument("--calls", type=int, default=3000, help="in one go (3000)")
    parser.add_argument("--output", metavar="FILE.md", help="where to write the tables as well")
    parser.add_argument("--timeout", type=float, default=300, help="of one process, seconds (300)")
    parser.add_argument("--venvs", type=Path, default=harness.HERE / ".venvs")
    parser.add_argument("--jax-extra", default="", help="for the peers' JAX, such as cuda12")
    parser.add_argument("--pip-options", type=shlex.split, default=[], help="for their pip install")
    options = parser.parse_args()
    for name, given, some in (("only", options.only, CAPACITIES), ("peers", options.peers, PEERS)):
        if unknown := set(given) - set(some):
            parser.error(f"--{name} has no {unknown.pop()}: there are {','.join(some)}.")
    return options


def commands(options: argparse.Namespace) -> dict[str, list[Any]]:
    """What runs each library's program; their environments are made where they are missing."""
    programs: dict[str, list[Any]] = {
        "rljax": [sys.executable, "-W", "ignore", harness.HERE / "measure_replay.py"]
    }
    for name in options.peers:
        python = harness.environment(name, options.venvs, options.jax_extra, options.pip_options)
        programs[name] = [python, "-W", "ignore", harness.PEERS / PEERS[name]]
    return programs


if __name__ == "__main__":
    sys.exit(main())
