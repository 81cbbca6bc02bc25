"""Speed and kernels of rljax on a GPU, beside a plain PPO in JAX; it runs on a CPU too.

    python benchmarks/gpu.py --quick                        a small run, to see that all works
    python benchmarks/gpu.py --output gpu.md                everything, within six minutes on a GPU

The rows are ordered by importance, and each is printed, and written to the output, when it is
measured. No row starts after `--budget` seconds. A row that fails becomes a remark, and the exit
code is then 1. README.md explains the columns.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from lib import harness
from lib.harness import Failed, Table, rate, seconds, span
from lib.worker import Worker
from peers import common

COMMAND_BUFFERS = "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL"
GRACE = 20  # seconds that a row may take after the budget is spent
OFF_POLICY = {"dqn": "CartPole-v1", "sac": "Pendulum-v1"}


class Case(NamedTuple):
    """One measurement.

    Attributes:
      name: the first cell of its row.
      size: the second cell, environments x steps and seeds.
      process: cases with the same name here share a process; "command buffers" is one with them.
      program: a program of lib/measure_gpu.py.
      arguments: its arguments.
    """

    name: str
    size: str
    process: str
    program: str
    arguments: dict[str, Any]


class Sizes(NamedTuple):
    """Sizes of the measurements, and the seconds of each of three repetitions."""

    wide: tuple[int, int] = (2048, 32)
    narrow: tuple[int, int] = (4, 128)
    seeds: tuple[int, ...] = (1, 32, 256)
    num_envs: int = 128
    learning_starts: int = 512
    capacity: int = 2**20
    calls: int = 1000
    target: float = 475
    wide_timesteps: int = 10_000_000
    seconds: float = 0.7
    runs: int = 3
    end_to_end: tuple[int, int] = (20_000_000, 500_000)  # environment steps, wide and narrow


QUICK = Sizes(
    (64, 8), (4, 16), (1, 2), 8, 256, 2**12, 20, 30, 60_000, 0.05, 1, (200_000, 20_000)
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run, to see that all works")
    parser.add_argument(
        "--budget", type=float, default=360, help="seconds after which no row starts (360)"
    )
    parser.add_argument("--timeout", type=float, default=120, help="seconds per row (120)")
    parser.add_argument(
        "--only", default="", metavar="NAMES",
        help='comma-separated rows, such as "ppo CartPole-v1 2048 x 32,plain PPO" (all)',
    )  # fmt: skip
    parser.add_argument("--output", metavar="FILE.md", help="markdown file for the tables")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    report = Report(sizes, options.output)
    end = time.perf_counter() + options.budget
    with contextlib.closing(Worker(harness.LIB / "measure_gpu.py")) as worker:
        for case in cases(sizes):
            if not is_chosen(case, harness.names(options.only)):
                continue
            try:
                remaining = end - time.perf_counter()
                answer = measure(case, sizes, worker, remaining, options.timeout)
                report.add(case, answer, harness.machine(worker.facts))
            except Failed as failure:
                report.fail(case, failure)
    print("\n" + report.line)
    for table in report.tables:
        print("\n" + table.text())
    return int(report.failed > 0)


def is_chosen(case: Case, names: list[str]) -> bool:
    """Whether the name and size of a case start with one of the names; with no names, all do."""
    buffers = " command buffers" * (case.process == "command buffers")
    return not names or f"{case.name}{buffers} {case.size}".startswith(tuple(names))


def measure(
    case: Case, sizes: Sizes, worker: Worker, remaining: float, timeout: float
) -> dict[str, Any]:
    """Returns the answer of the measuring process.

    Raises:
      Failed: the budget is spent, or the measurement failed; the message says why.
    """
    has_buffers = case.process == "command buffers"
    if remaining < 0:
        raise Failed("skipped: the budget is spent")
    if has_buffers and worker.facts.get("backend") != "gpu":
        raise Failed("left out: XLA has command buffers on a GPU only")
    flags = (os.environ.get("XLA_FLAGS"), has_buffers and COMMAND_BUFFERS)
    # a program from the cache would not be compiled
    settings = {"XLA_FLAGS": " ".join(filter(None, flags)), "RLJAX_CACHE": "off"}
    request = {"program": case.program, "seconds": sizes.seconds, "runs": sizes.runs}
    request |= case.arguments
    answer = worker.ask(request, case.process, settings, min(timeout, remaining + GRACE))
    if "failed" in answer:
        raise Failed(answer["failed"])
    return answer


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yields all measurements, the most important first."""
    ppo = list(ppo_cases(sizes))
    off_policy = [loop_case(agent, env_id, sizes) for agent, env_id in OFF_POLICY.items()]
    yield from ppo[:3]
    for case in ppo[:3]:
        fields = case.arguments["fields"]
        arguments = {"env_id": case.arguments["env_id"], "fields": shape_of(fields)}
        yield Case("plain PPO", case.size, "plain", "peer", arguments | {"chunk": 8})
    yield from ppo[3:]
    yield from off_policy
    for agent in ("a2c", "pqn"):
        yield loop_case(agent, "CartPole-v1", sizes)
    yield from reach_cases(sizes)
    replay = {"capacity": sizes.capacity, "calls": sizes.calls}
    size = f"capacity {sizes.capacity:,}"
    yield Case("prioritized replay, cycles", size, "rljax", "replay", replay)
    for case in (ppo[0], ppo[2], *off_policy, ppo[1], *ppo[3:]):
        arguments = case.arguments | {"traced": case in (ppo[0], off_policy[0])}
        yield case._replace(process="command buffers", arguments=arguments)


def ppo_cases(sizes: Sizes) -> Iterator[Case]:
    """Yields PPO on two environments, then on CartPole with more and more seeds."""
    stock = {name: value for name, value in common.STOCK.items() if name != "env_id"}
    for env_id, shape, num_seeds in (
        ("CartPole-v1", sizes.wide, 1), ("Breakout-MinAtar", sizes.wide, 1),
        *(("CartPole-v1", sizes.narrow, num_seeds) for num_seeds in sizes.seeds),
    ):  # fmt: skip
        fields = stock | dict(zip(("num_envs", "num_steps"), shape, strict=True))
        arguments = {"agent": "ppo", "env_id": env_id, "num_seeds": num_seeds, "fields": fields}
        yield Case(f"ppo {env_id}", size_of(*shape, num_seeds), "rljax", "train", arguments)


def loop_case(agent: str, env_id: str, sizes: Sizes) -> Case:
    """Returns the training loop of an agent with its own defaults and many environments."""
    fields = {"num_envs": sizes.num_envs}
    if agent in OFF_POLICY:
        fields["learning_starts"] = sizes.learning_starts
    arguments = {"agent": agent, "env_id": env_id, "num_seeds": 1, "fields": fields}
    size = f"{sizes.num_envs} envs"
    return Case(f"{agent} {env_id}", size, "rljax", "train", arguments)


def reach_cases(sizes: Sizes) -> Iterator[Case]:
    """Yields PPO until a return, with many environments and with its defaults."""
    wide = dict(zip(("num_envs", "num_steps"), sizes.wide, strict=True))
    wide["total_timesteps"] = sizes.wide_timesteps
    for size, fields in ((size_of(*sizes.wide), wide), ("defaults", {})):
        arguments = {"env_id": "CartPole-v1", "target": sizes.target, "fields": fields}
        yield Case("ppo CartPole-v1", size, "rljax", "reach", arguments)


def shape_of(fields: dict[str, Any]) -> dict[str, int]:
    return {name: fields[name] for name in ("num_envs", "num_steps")}


def size_of(num_envs: int, num_steps: int, num_seeds: int = 1) -> str:
    return f"{num_envs} x {num_steps}" + (f", {num_seeds} seeds" if num_seeds > 1 else "")


class Report:
    """The tables, and the markdown file, which is written again after each row."""

    def __init__(self, sizes: Sizes, output: str | None):
        """Makes empty tables."""
        self._sizes, self._output, self.line, self.failed = sizes, output, "", 0
        self._answers: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.loops = Table(
            "Training",
            "Steps per second in steady state, of all seeds together. An update is one rollout and "
            "the learning from it. The columns from `kernels` to `busy` are those of one update "
            "in a profiler trace: kernels, copies in the memory of the device, copies to the host, "
            "and the part of the time in which a kernel runs. The last two columns count the "
            "loops and branches of the compiled program that wait for a value on the host.",
            "measurement", "envs x steps", ">compile s", ">steps/s", ">min - max", ">ms/update",
            ">kernels", ">copies", ">host reads", ">busy", ">data-dependent loops", ">conditionals",
        )  # fmt: skip
        self.plain = Table(
            "Beside a plain PPO",
            "The same hyperparameters and networks in one plain program of gymnax, flax and optax "
            "(peers/plain_ppo.py). `in all` is the time to compile and take the given steps. "
            "Ratios above 1 mean that rljax is faster.",
            "environment", "envs x steps", ">rljax steps/s", ">plain steps/s", ">ratio",
            ">steps", ">rljax in all s", ">plain in all s", ">ratio in all",
        )  # fmt: skip
        self.reach = Table(
            f"Time to a return of {sizes.target:g}",
            "A whole call of `rljax.train` until the mean return of the episodes that ended in a "
            "report is reached; a report comes after each hundredth of the run.",
            "agent", "configuration", ">steps", ">s with compiling", ">s without", ">return",
        )  # fmt: skip
        self.buffers = Table(
            "Command buffers for loops",
            f"Steps per second without and with `XLA_FLAGS={COMMAND_BUFFERS}`.",
            "measurement", "envs x steps", ">without", ">with", ">ratio", ">compile s with",
            ">kernels with", ">host reads with",
        )  # fmt: skip
        self.top = Table(
            "Instructions with the longest time",
            "The five instructions of a program in which the device spends most time: their "
            "part of the time of all kernels, and microseconds and launches in one update.",
            "program", "envs x steps", "instruction", "kernel", ">part", ">us/update", ">launches",
            "origin",
        )  # fmt: skip
        self.tables = [self.loops, self.plain, self.reach, self.buffers, self.top]

    def add(self, case: Case, answer: dict[str, Any], line: str) -> None:
        """Adds a row to the table of a case, and its instructions to that of the instructions."""
        self.line = line
        self._answers[case.name, case.size, self._place(case)] = answer
        if case.program == "reach":
            times = answer["seconds"], answer["seconds_without_compiling"]
            cells = map(seconds, times)
            self.reach.add(
                case.name, case.size, f"{answer['steps']:,}", *cells, f"{answer['return']:.0f}"
            )
        elif case.process == "command buffers":
            self._add_buffers(case, answer)
        else:
            self.loops.add(self._label(case), case.size, *loop_cells(answer))
        if case.program == "peer":
            self._add_plain(case, answer)
        for top in answer.get("top", ()) if self._is_listed(case) else ():
            kernel = "" if top["kernel"] == top["op"] else top["kernel"][:40]
            self.top.rows.append([
                self._label(case), case.size, top["op"], kernel, f"{100 * top['part']:.0f} %",
                f"{top['microseconds']:.0f}", f"{top['count']:.3g}", top["origin"],
            ])  # fmt: skip
        self._add_remarks(case, answer)
        self._write()

    def fail(self, case: Case, failure: Failed) -> None:
        """Adds a remark."""
        left_out = str(failure).startswith(("skipped", "left out"))
        self.failed += not left_out
        table = self.reach if case.program == "reach" else self.loops
        table = self.buffers if case.process == "command buffers" else table
        table.remarks.append(f"{self._label(case)}, {case.size} {failure}" if left_out else
                             f"{self._label(case)}, {case.size} failed: {failure}")  # fmt: skip
        print(table.remarks[-1], file=sys.stderr, flush=True)
        self._write()

    def _is_listed(self, case: Case) -> bool:
        sizes = size_of(*self._sizes.wide), f"{self._sizes.num_envs} envs"
        is_algorithm = case.name.startswith(("ppo", *OFF_POLICY)) and case.process == "rljax"
        return case.program == "train" and is_algorithm and case.size in sizes

    def _add_remarks(self, case: Case, answer: dict[str, Any]) -> None:
        label = f"{self._label(case)}, {case.size}"
        if "trace_failed" in answer:
            self.loops.remarks.append(f"{label}: no trace, {answer['trace_failed']}")
        if answer.get("waiting") and case.size not in map(
            lambda n: size_of(*self._sizes.narrow, n), self._sizes.seeds
        ):
            self.loops.remarks.append(f"{label} waits for: {'; '.join(answer['waiting'])}")

    def _place(self, case: Case) -> str:
        return f"{case.process}, {case.arguments.get('env_id')}, {case.program}"

    def _label(self, case: Case) -> str:
        env_id = case.arguments.get("env_id", "")
        name = f"{case.name} {env_id}" if case.program == "peer" else case.name
        return f"{name}, command buffers" if case.process == "command buffers" else name

    def _write(self) -> None:
        harness.write(self._output, "Speed on a GPU", self.line, self.tables)

    def _add_buffers(self, case: Case, answer: dict[str, Any]) -> None:
        before = self._answers.get((case.name, case.size, self._place(
            case._replace(process="rljax")
        )))  # fmt: skip
        rates = [before and median_rate(before), median_rate(answer)]
        self.buffers.add(
            case.name, case.size, rate(rates[0]) if rates[0] else "-", rate(rates[1]),
            f"{rates[1] / rates[0]:.2f}" if rates[0] else "-", seconds(answer["compile_seconds"]),
            number(answer.get("kernels")), number(answer.get("host_reads")),
        )  # fmt: skip

    def _add_plain(self, case: Case, answer: dict[str, Any]) -> None:
        env_id = case.arguments["env_id"]
        ours = self._answers.get((f"ppo {env_id}", case.size, f"rljax, {env_id}, train"))
        if ours is None:
            return
        wide = case.size == size_of(*self._sizes.wide)
        steps = self._sizes.end_to_end[0 if wide else 1]
        rates = [median_rate(side) for side in (ours, answer)]
        times = [
            side["compile_seconds"] + steps / speed
            for side, speed in zip((ours, answer), rates, strict=True)
        ]
        self.plain.add(
            env_id, case.size, *map(rate, rates), f"{rates[0] / rates[1]:.2f}",
            f"{steps:,}", *map(seconds, times), f"{times[1] / times[0]:.2f}",
        )  # fmt: skip


def loop_cells(answer: dict[str, Any]) -> list[str]:
    busy = answer.get("busy_seconds")
    return [
        seconds(answer["compile_seconds"]), *span(answer["steps_per_second"]),
        f"{1e3 * answer['update_seconds']:.3g}",
        number(answer["kernels"]) if "kernels" in answer else f"{answer['launches']} in HLO",
        *(number(answer.get(name)) for name in ("copies", "host_reads")),
        f"{100 * busy / answer['update_seconds']:.0f} %" if busy else "-",
        f"{answer['data_dependent_loops']} of {answer['loops']}", str(answer["conditionals"]),
    ]  # fmt: skip


def median_rate(answer: dict[str, Any]) -> float:
    return float(np.median(answer["steps_per_second"]))


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    sys.exit(main())
