"""Training speed of DQN and PQN on CartPole-v1 beside rejax, pair by pair.

    python benchmarks/value_based.py                     both agents, five pairs
    python benchmarks/value_based.py --agents dqn --repeats 3 --no-peer

The configurations are in peers/value_common.py. A rate is that of a whole run after a warm-up run,
compiling excluded; for rljax that of a whole call of `rljax.train`. The exit code is 1 if a ratio
is below `EXPECTED`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lib import harness
from lib.harness import Failed, Table, rate, seconds, span
from peers import common, value_common

EXPECTED = {"dqn": 8.0, "pqn": 1.2}  # times rejax's steps per second
PYTHON = (sys.executable, "-W", "ignore")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--agents", default=tuple(EXPECTED), type=harness.names, help="agents: dqn,pqn (both)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="pairs of each agent (5)")
    parser.add_argument("--num-seeds", type=int, default=1, help="seeds side by side (1)")
    parser.add_argument("--no-peer", action="store_true", help="rljax alone, without rejax")
    parser.add_argument("--timeout", type=float, default=900, help="seconds per process (900)")
    parser.add_argument(
        "--venvs", type=Path, default=harness.BENCHMARKS / ".venvs",
        help="directory of the peers' virtual environments",
    )  # fmt: skip
    parser.add_argument("--output", metavar="FILE.md", help="markdown file for the table")
    parser.add_argument("--measure", choices=tuple(EXPECTED), help=argparse.SUPPRESS)
    parser.add_argument("--timesteps", type=int, help="environment steps of a run")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.timesteps, options.num_seeds)
        return 0
    return compare(options)


def measure(agent: str, timesteps: int, num_seeds: int) -> None:
    """Times whole calls of `rljax.train`; prints one line of JSON."""
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
        versions=common.versions("jax", "flax", "gymnax"), processor="", **common.jax_device(),
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
        f"CartPole-v1, {options.num_seeds} seed(s), pairs of processes ({options.repeats}), one "
        "after the other. Compile times are wall seconds and are excluded from the rates.",
        "agent", ">rljax steps/s", ">rejax steps/s", ">ratio", ">min - max", ">expected",
        ">rljax compile", ">rejax compile", ">rljax return", ">rejax return",
    )  # fmt: skip
    failed = 0
    peer = None
    if not options.no_peer:
        peer = harness.environment("rejax", options.venvs, "", [])
    for agent in options.agents:
        timesteps = options.timesteps or value_common.TIMESTEPS[agent]
        size = {"num_seeds": options.num_seeds, "timesteps": timesteps}
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
            table.remarks.append(f"{agent} failed: {failure}")
        if not pairs:
            continue
        rates = np.array(
            [[x["steps_per_second"][0] if x else np.nan for x in pair] for pair in pairs]
        )
        ratios = rates[:, 0] / rates[:, 1]
        known = [[x for x in side if x] for side in zip(*pairs, strict=True)]
        compiling = [seconds(np.median([x["compile_seconds"] for x in s]) if s else None)
                     for s in known]  # fmt: skip
        returns = [f"{np.mean([x['final_return'] for x in s]):.0f}" if s else "-" for s in known]
        shown = span(list(ratios), lambda x: f"{x:.2f}") if peer else ["-", "-"]
        theirs = rate(float(np.median(rates[:, 1]))) if peer else "-"
        table.add(
            agent, rate(float(np.median(rates[:, 0]))), theirs, *shown, f"{EXPECTED[agent]:g}",
            *compiling, *returns,
        )  # fmt: skip
        failed += bool(peer and np.median(ratios) < EXPECTED[agent])
    print(table.text())
    harness.write(options.output, "Value-based agents", "", [table])
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
