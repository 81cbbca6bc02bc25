"""Speed of rljax: compiling, training, stepping environments, starting; beside other libraries.

    python benchmarks/throughput.py                              without other libraries
    python benchmarks/throughput.py --peers rejax,sb3,sbx        beside them, pair by pair
    python benchmarks/throughput.py --quick --output table.md    a few minutes

Each number is measured in a process of its own. A process that fails becomes a row marked as
failed, and the exit code is then 1. README.md explains the columns.
"""

import argparse
import itertools
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lib import harness
from lib.harness import Failed, Table, rate, seconds, span
from peers.common import ROLLOUT

PYTHON = (sys.executable, "-W", "ignore")
SHAPES = ((4, 128), (64, 128), (2048, 32))
ENV_IDS = ("CartPole-v1", "Breakout-MinAtar")
MAX_ROLLOUT = 2**20  # steps of one rollout of all seeds on a CPU, which is slow and short of memory
WIDTHS = {64: 1, 256: 5, 512: 20}  # units of a layer: divisor of the number of timed steps
CARTPOLE = harness.REPOSITORY / "configs" / "ppo" / "CartPole-v1.toml"


class Peer(NamedTuple):
    """How the program of another library is run.

    Attributes:
      program: file in peers/.
      options: command-line options of its own.
      many_seeds: whether it trains several seeds side by side.
      fewer: divisor of the number of steps it is timed on, for slow libraries.
    """

    program: str
    options: dict[str, str]
    many_seeds: bool
    fewer: int


PEERS = {
    "rejax": Peer("rejax_ppo.py", {}, True, 1),
    "purejaxrl": Peer("purejaxrl_ppo.py", {}, True, 1),
    "sb3": Peer("sb3_ppo.py", {"library": "sb3"}, False, 8),
    "sbx": Peer("sb3_ppo.py", {"library": "sbx"}, False, 8),
}


def main() -> int:
    options = parse()
    try:
        known = measure("random", options, seconds=0.05, runs=1)
    except Failed as failure:
        sys.exit(f"rljax does not run here: {failure}")
    line, attempts = harness.machine(known), []
    options.backend = known["backend"]
    for name in options.only:
        if (name == "peers" and not options.peers) or (
            name == "widths" and "rejax" not in options.peers
        ):
            continue
        print(f"\n{name} · {line}", file=sys.stderr)
        attempts.append(SECTIONS[name](options))
        tables = [attempt.table for attempt in attempts]
        harness.write(options.output, "Throughput", line, tables)
    print("\n" + line)
    for attempt in attempts:
        print("\n" + attempt.table.text())
    return int(any(attempt.failed for attempt in attempts))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = harness.names
    parser.add_argument("--quick", action="store_true", help="a small run, to see that all works")
    parser.add_argument(
        "--only", type=names, default=tuple(SECTIONS), help="sections: " + ",".join(SECTIONS)
    )
    parser.add_argument(
        "--peers", type=names, default=(), help="other libraries: " + ",".join(PEERS)
    )
    parser.add_argument("--repeats", type=int, help="repetitions of each measurement (5)")
    parser.add_argument(
        "--num-seeds", type=names, default=("1", "8", "32"), help="seeds side by side (1,8,32)"
    )
    parser.add_argument(
        "--peer-seeds", type=names, default=("1", "8"), help="seeds beside other libraries (1,8)"
    )
    parser.add_argument("--purejaxrl", metavar="PATH", help="a checkout of PureJaxRL")
    parser.add_argument("--output", metavar="FILE.md", help="markdown file for the tables")
    parser.add_argument("--timeout", type=float, default=900, help="seconds per process (900)")
    parser.add_argument(
        "--venvs", type=Path, default=harness.BENCHMARKS / ".venvs",
        help="directory of the peers' virtual environments",
    )  # fmt: skip
    parser.add_argument("--jax-extra", default="", help="extra of the peers' JAX, such as cuda12")
    parser.add_argument(
        "--pip-options", type=shlex.split, default=[], help="further options of pip install"
    )
    options = parser.parse_args()
    if options.purejaxrl and "purejaxrl" not in options.peers:
        options.peers += ("purejaxrl",)
    if "purejaxrl" in options.peers and not options.purejaxrl:
        parser.error("purejaxrl is not on the package index: give --purejaxrl PATH, a checkout.")
    for name, given, known in (("only", options.only, SECTIONS), ("peers", options.peers, PEERS)):
        if unknown := set(given) - set(known):
            parser.error(f"--{name} has no {unknown.pop()}: choose from {','.join(known)}.")
    options.repeats = options.repeats or (1 if options.quick else 5)
    options.seconds = 0.2 if options.quick else 2.0
    options.updates = 20 if options.quick else 976
    if options.quick:
        options.num_seeds, options.peer_seeds = options.num_seeds[:2], options.peer_seeds[:1]
    return options


def measure(program: str, options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Runs one program of lib/measure.py in this interpreter."""
    command = [*PYTHON, harness.LIB / "measure.py", program]
    return harness.ask(command, options.timeout, **more)


class Attempts:
    """Rows of a table that may fail: a remark gives the reason, and the other rows follow."""

    def __init__(self, table: Table):
        self.table, self.failed = table, 0

    def __call__(self, cells: list[str], work: Callable[..., Any], *args: Any, **kwargs: Any):
        """Returns the result of `work`; if it fails, adds a row with `cells` and returns None."""
        try:
            return work(*args, **kwargs)
        except Failed as failure:
            self.failed += 1
            self.table.add(*cells, "failed")
            self.table.remarks.append(f"{', '.join(cells)} failed: {failure}")
            print(failure, file=sys.stderr)
            return None


def loop_table(options: argparse.Namespace) -> Attempts:
    """Steps per second of PPO's loop, of a random policy, and of gymnax's own step."""
    table = Table(
        "Training, and a random policy",
        f"Environment steps per second of all seeds together, {options.repeats} chunks of about "
        f"{options.seconds:g} s after a warm-up. `random` is the same loop without learning; "
        "`gymnax` is gymnax's own step with its own resets.",
        "environment", "envs x steps", ">seeds", "program", ">steps/s", ">min - max",
        ">compile s", ">compile CPU s", ">of random",
    )  # fmt: skip
    attempt = Attempts(table)
    shapes = SHAPES[:2] if options.quick else SHAPES
    for env_id, (num_envs, num_steps), seeds in itertools.product(
        ENV_IDS, shapes, options.num_seeds
    ):
        if options.backend == "cpu" and num_envs * num_steps * int(seeds) > MAX_ROLLOUT:
            table.remarks.append(
                f"{env_id}, {num_envs} x {num_steps}, {seeds} seeds: omitted on a CPU, a rollout "
                f"of more than {MAX_ROLLOUT:,} steps"
            )
            continue
        ceiling = None
        for program in ("random", "gymnax", "ppo"):
            if program == "gymnax" and seeds != options.num_seeds[0]:
                continue
            cells = [env_id, f"{num_envs} x {num_steps}", seeds, program]
            measured = attempt(
                cells, measure, program, options, env_id=env_id, num_envs=num_envs,
                num_steps=num_steps, num_seeds=seeds, runs=options.repeats, seconds=options.seconds,
            )  # fmt: skip
            if measured is None:
                continue
            median = np.median(measured["steps_per_second"])
            ceiling = median if program == "random" else ceiling
            table.add(
                *cells, *span(measured["steps_per_second"]), seconds(measured["compile_seconds"]),
                seconds(measured["compile_cpu_seconds"]),
                f"{100 * median / ceiling:.3g} %" if ceiling else "-",
            )  # fmt: skip
    return attempt


def peers_table(options: argparse.Namespace) -> Attempts:
    """rljax and each peer by turns, A B A B, and their ratio pair by pair."""
    table = Table(
        "Beside other libraries",
        "PPO on CartPole-v1, 4 environments x 128 steps, 4 epochs x 4 minibatches, 64-64 tanh; "
        f"pairs of processes ({options.repeats}), one after the other. The ratio is rljax over the "
        "peer, pair by pair. Compile times are CPU seconds and are excluded from the rates.",
        "peer", ">seeds", ">rljax steps/s", ">peer steps/s", ">ratio", ">min - max",
        ">rljax compile", ">peer compile", ">rljax return", ">peer return",
    )  # fmt: skip
    attempt = Attempts(table)
    for name in options.peers:
        peer = PEERS[name]
        peer_options = dict(peer.options)
        if name == "purejaxrl":
            peer_options["checkout"] = Path(options.purejaxrl).expanduser().resolve()
        python = attempt(
            [name], harness.environment, name, options.venvs, options.jax_extra,
            options.pip_options,
        )  # fmt: skip
        if python is None:
            continue
        command = [python, "-W", "ignore", harness.PEERS / peer.program]
        for seeds in options.peer_seeds if peer.many_seeds else ("1",):
            # many seeds take fewer steps each: all together twice as many as a single seed
            updates = options.updates if seeds == "1" else 2 * options.updates // int(seeds)
            ours = {"num_seeds": seeds, "timesteps": max(1, updates) * ROLLOUT}
            theirs = ours | {"timesteps": max(1, updates // peer.fewer) * ROLLOUT}
            theirs |= peer_options
            add_pairs(attempt, [name, seeds], command, options, ours, theirs)
    return attempt


def widths_table(options: argparse.Namespace) -> Attempts:
    """PPO with networks of several widths, rljax and rejax by turns."""
    table = Table(
        "Wide networks",
        "PPO on CartPole-v1, one seed, 8 environments x 64 steps, 10 epochs x 4 minibatches, tanh; "
        f"pairs of processes ({options.repeats}), one after the other. The ratio is rljax over "
        "rejax, pair by pair. Compile times are CPU seconds and are excluded from the rates.",
        "units", ">rljax steps/s", ">rejax steps/s", ">ratio", ">min - max",
        ">rljax compile", ">rejax compile", ">rljax return", ">rejax return",
    )  # fmt: skip
    attempt = Attempts(table)
    python = attempt(
        ["rejax"], harness.environment, "rejax", options.venvs, options.jax_extra,
        options.pip_options,
    )  # fmt: skip
    command = [python, "-W", "ignore", harness.PEERS / PEERS["rejax"].program]
    for width, fewer in WIDTHS.items() if python else ():
        size = {"width": width, "timesteps": max(1, options.updates // fewer) * ROLLOUT}
        add_pairs(attempt, [f"{width}-{width}"], command, options, size, size)
    return attempt


def add_pairs(
    attempt: Attempts, cells: list[str], command: list[Any], options: argparse.Namespace,
    ours: dict[str, Any], theirs: dict[str, Any],
) -> None:  # fmt: skip
    """Measures rljax and the peer by turns; adds a row and a remark to the table."""
    pairs = []
    while len(pairs) < options.repeats:
        a = attempt(cells, measure, "stock", options, **ours)
        b = a and attempt(cells, harness.ask, command, options.timeout, **theirs)
        if not b:
            break  # a second try would fail in the same way, and a timeout is long
        pairs.append((a, b))
        rates = [rate(x["steps_per_second"][0]) for x in (a, b)]
        print(f"{', '.join(cells)}: {' against '.join(rates)}", file=sys.stderr)
    if pairs:
        attempt.table.add(*cells, *pair_cells(pairs))
        attempt.table.remarks.append(f"{', '.join(cells)}: {conditions(*pairs[0])}")


def pair_cells(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    sides = list(zip(*pairs, strict=True))
    rates = [[float(np.median(x["steps_per_second"])) for x in side] for side in sides]
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    compiling, returns = [], []
    for side in sides:
        known = [x["compile_cpu_seconds"] for x in side if x["compile_cpu_seconds"] is not None]
        compiling.append(seconds(float(np.median(known)) if known else None))
        known = [x["final_return"] for x in side if "final_return" in x]
        returns.append(f"{np.mean(known):.0f}" if known else "-")
    return [
        *(rate(float(np.median(x))) for x in rates),
        *span(ratios, lambda x: f"{x:.2f}" if x < 10 else f"{x:.0f}"), *compiling, *returns,
    ]  # fmt: skip


def conditions(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Returns the peer's versions, device and steps, with a warning if the devices differ."""
    versions = [f"{name} {version}" for name, version in theirs["versions"].items()]
    steps = f"{theirs['steps']:,} steps (rljax {ours['steps']:,}), all seeds together"
    other = theirs["backend"] != ours["backend"]
    warning = f"; NOT on the device of rljax, {ours['device']}" if other else ""
    return f"{', '.join(versions)}; {theirs['device']}{warning}; {steps}"


def startup_table(options: argparse.Namespace) -> Attempts:
    """Wall time of whole processes, by turns, so that a busy minute affects all of them."""
    table = Table(
        "Start-up",
        f"Wall seconds of whole processes, {options.repeats} by turns after a first one that is "
        "not counted. The last process trains, evaluates and writes a run directory.",
        "process", ">seconds", ">min - max", "summary",
    )  # fmt: skip
    attempt = Attempts(table)
    config = CARTPOLE.relative_to(harness.REPOSITORY)
    train = f"rljax train {config}"
    more = ["--total-timesteps", str(options.updates * ROLLOUT)] if options.quick else []
    commands = {
        "python -c pass": ["-c", "pass"],
        "import jax": ["-c", "import jax"],
        "import rljax": ["-c", "import rljax"],
        'rljax.make("CartPole-v1")': ["-c", 'import rljax; rljax.make("CartPole-v1")'],
        "rljax --help": ["-m", "rljax", "--help"],
        train: ["-m", "rljax", "train", str(CARTPOLE), "--no-progress", "--run-dir", "run", *more],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    summaries = {name: "" for name in commands}
    for turn in range(1 + options.repeats):
        for name in list(times):
            with tempfile.TemporaryDirectory() as directory:
                command = [*PYTHON, *commands[name]]
                done = attempt([name], harness.run, command, options.timeout, Path(directory))
            if done is None:
                del times[name]
                continue
            output, wall = done
            times[name] += [wall] if turn else []
            if name == train:
                summaries[name] = output.splitlines()[1].strip()
    for name, walls in times.items():
        table.add(name, *span(walls, seconds), summaries[name])
    return attempt


SECTIONS = {
    "loop": loop_table, "peers": peers_table, "widths": widths_table, "startup": startup_table
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
