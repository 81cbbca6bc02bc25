"""Training speed of DQN and PQN on CartPole-v1 beside rejax, pair by pair.

    python benchmarks/value_based.py                     both agents, five pairs
    python benchmarks/value_based.py --agents dqn --repeats 3 --no-peer

The configurations are in peers/value_common.py. A rate is that of a whole run after a warm-up run,
compiling excluded; for rljax that of a whole call of `rljax.train`. The exit code is 1 if a ratio
is below `EXPECTED`.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lib import harness
from lib.harness import Failed, Table, rate, seconds, span
from peers import common, value_common

# times rejax's steps per second, by agent and number of seeds
EXPECTED = {("dqn", 1): 6.0, ("dqn", 8): 8.0, ("pqn", 1): 1.2, ("pqn", 8): 1.2}
AGENTS = ("dqn", "pqn")
PYTHON = (sys.executable, "-W", "ignore")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--agents", default=AGENTS, type=harness.names, help="agents: dqn,pqn (both)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="pairs of each agent (5)")
    parser.add_argument(
        "--num-seeds", type=harness.names, default=("1",), help="seeds side by side (1)"
    )
    parser.add_argument("--no-peer", action="store_true", help="rljax alone, without rejax")
    parser.add_argument("--timeout", type=float, default=900, help="seconds per process (900)")
    parser.add_argument(
        "--venvs", type=Path, default=harness.BENCHMARKS / ".venvs",
        help="directory of the peers' virtual environments",
    )  # fmt: skip
    parser.add_argument("--output", metavar="FILE.md", help="markdown file for the table")
    parser.add_argument("--measure", choices=AGENTS, help=argparse.SUPPRESS)
    parser.add_argument("--timesteps", type=int, help="environment steps of a run")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.timesteps, int(*options.num_seeds))
        return 0
    return compare(options)


def measure(agent: str, timesteps: int, num_seeds: int) -> None:
    """Times whole calls of `rljax.train`; prints one line of JSON."""
    from lib.measure import processor

    import rljax

    pieces = {} if agent == "pqn" else {"network": linear_streams()}

    def train():
        return rljax.train(
            agent, "CartPole-v1", num_seeds=num_seeds, progress=False, eval_episodes=0,
            total_timesteps=timesteps, **value_common.STOCK[agent], **pieces,
        )  # fmt: skip

    with common.Clock() as compiling:
        result = train()
    compiling.wall = result.compile_seconds
    clocks = []
    for _ in range(2):  # the first of these only warms up
        with common.Clock() as clock:
            result = train()
        clocks.append(clock)
    returns = rljax.evaluate(result, 100, **pieces)["returns"]
    steps, final_return = num_seeds * int(result.steps[-1]), float(returns.mean())
    common.answer(
        steps, clocks[1:], compiling, final_return=final_return,
        versions=common.versions("jax", "flax", "gymnax"), processor=processor(),
        **common.jax_device(),
    )  # fmt: skip


def linear_streams() -> Any:
    """Returns rejax's dueling network: each stream is one layer; rljax has a hidden layer more."""
    import flax.linen as nn

    from rljax.networks.action_values import Layers

    class LinearStreams(nn.Module):
        @nn.compact
        def __call__(self, obs):
            x = Layers(value_common.DQN["hidden_sizes"], value_common.DQN["activation"])(obs)
            advantage = nn.Dense(2)(x)
            return nn.Dense(1)(x) + advantage - advantage.mean(axis=-1, keepdims=True)

    return LinearStreams()


def compare(options: argparse.Namespace) -> int:
    table = Table(
        "Value-based agents",
        f"CartPole-v1, pairs of processes ({options.repeats}), one after the other. Steps of all "
        "seeds together; compile times are wall seconds and are excluded from the rates.",
        "agent", ">seeds", ">rljax steps/s", ">rejax steps/s", ">ratio", ">min - max", ">expected",
        ">rljax compile", ">rejax compile", ">rljax return", ">rejax return",
    )  # fmt: skip
    failed, line = 0, ""
    peer = None if options.no_peer else harness.environment("rejax", options.venvs, "", [])
    for agent, seeds in itertools.product(options.agents, options.num_seeds):
        timesteps = options.timesteps or value_common.TIMESTEPS[agent]
        size = {"num_seeds": seeds, "timesteps": timesteps}
        pairs: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
        try:
            for _ in range(options.repeats):
                program = [*PYTHON, Path(__file__).resolve()]
                ours = harness.ask(program, options.timeout, measure=agent, **size)
                theirs = None
                if peer is not None:
                    program = [peer, "-W", "ignore", harness.PEERS / "rejax_value.py"]
                    theirs = harness.ask(program, options.timeout, algorithm=agent, **size)
                pairs.append((ours, theirs))
        except Failed as failure:
            failed += 1
            table.remarks.append(f"{agent}, {seeds} seeds failed: {failure}")
        if pairs:
            line = line or harness.machine(pairs[0][0])
            failed += add_row(table, agent, int(seeds), pairs)
            table.remarks.append(f"{agent}, seeds {seeds}: {timesteps:,} steps of each seed")
    print(line, table.text(), sep="\n\n")
    harness.write(options.output, "Value-based agents", line, [table])
    return int(failed > 0)


def add_row(
    table: Table, agent: str, seeds: int,
    pairs: list[tuple[dict[str, Any], dict[str, Any] | None]],
) -> bool:  # fmt: skip
    """Adds a row to the table. Returns whether the ratio is below the expected one."""
    ours, theirs = ([x for x in side if x] for side in zip(*pairs, strict=True))
    rates = [[x["steps_per_second"][0] for x in side] for side in (ours, theirs)]
    expected = EXPECTED.get((agent, seeds), 0.0)
    ratios = [a / b for a, b in zip(*rates, strict=False)]
    table.add(
        agent, str(seeds), *(rate(float(np.median(x))) if x else "-" for x in rates),
        *(span(ratios, lambda x: f"{x:.2f}") if ratios else ["-", "-"]), f"{expected:g}",
        *(seconds(np.median([x["compile_seconds"] for x in s]) if s else None)
          for s in (ours, theirs)),
        *(f"{np.mean([x['final_return'] for x in s]):.0f}" if s else "-" for s in (ours, theirs)),
    )  # fmt: skip
    return bool(ratios and np.median(ratios) < expected)


if __name__ == "__main__":
    sys.exit(main())
