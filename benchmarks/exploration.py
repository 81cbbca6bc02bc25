"""Exploration of DeepSea with and without random network distillation (RND), many seeds of each.

    python benchmarks/exploration.py                               all rows of the table
    python benchmarks/exploration.py dqn-10 --num-seeds 32 --first-seed 1

In DeepSea of size N only N right actions in sequence reach the treasure, and each of them costs
.01 / N (Osband et al. 2020, https://arxiv.org/abs/1908.03568). Uniform random actions need 2^N
episodes on average. A seed has solved it if the greedy policy of the final parameters reaches the
treasure, a return of .99.

The two agents of a row are equal, but without RND the coefficient of the bonus is 0. The exit code
is 1 if an agent with RND solves it on fewer than 80 % of the seeds, or one without RND on half of
them or more. Options were chosen with --first-seed 1000 and 2000.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from lib import harness, measure
from lib.harness import Table

sys.path.insert(0, str(harness.REPOSITORY))  # this checkout

from scipy import stats

import rljax
from rljax.config import config, option
from rljax.types import identity

COEFFICIENT = 0.5
HELP = "weight of the exploration bonus"


@config
class DQNConfig(rljax.DQNConfig):
    coefficient: float = option(COEFFICIENT, HELP, low=0)


@config
class PPOConfig(rljax.PPOConfig):
    coefficient: float = option(COEFFICIENT, HELP, low=0)


def with_bonus(make: Callable[..., Any], learning_rate: float) -> Callable[..., Any]:
    """Returns the maker of an agent with RND; `learning_rate` is that of the predictor."""

    def make_with_bonus(config, spec, *, average=identity):
        return rljax.random_network_distillation(
            make(config, spec, average=average), spec, coefficient=config.coefficient,
            learning_rate=learning_rate, gamma=config.gamma, average=average,
        )  # fmt: skip

    return make_with_bonus


class Row(NamedTuple):
    """One row of the table: an agent and a size of DeepSea.

    Attributes:
      agent: config class and maker.
      size: N.
      options: options that differ from the defaults of the agent.
    """

    agent: tuple[type, Callable[..., Any]]
    size: int
    options: Mapping[str, Any]


DQN = DQNConfig, with_bonus(rljax.dqn, 3e-4)
PPO = PPOConfig, with_bonus(rljax.ppo, 1e-2)  # fewer updates, so a larger learning rate
SMALL_EPSILON = {
    "eps_start": 0.05, "eps_end": 0.05, "target_update_interval": 100, "n_step": 1,
    "normalize_obs": False, "anneal_lr": False, "exploration_repeat": 1,
}  # fmt: skip
ROLLOUTS = {
    "num_steps": 64, "num_minibatches": 4, "learning_rate": 2e-3, "normalize_obs": False,
    "normalize_reward": False,
}  # fmt: skip
ROWS = {
    "dqn-10": Row(DQN, 10, SMALL_EPSILON | {"total_timesteps": 20_000}),
    "ppo-10": Row(PPO, 10, ROLLOUTS | {"total_timesteps": 200_000}),
    "dqn-20": Row(DQN, 20, SMALL_EPSILON | {"total_timesteps": 100_000}),
}


def num_solved(row: Row, num_seeds: int, seed: int) -> np.ndarray:
    """Trains all seeds of both agents in one call. Returns solved seeds without and with RND."""
    run = rljax.train(
        row.agent, "DeepSea-bsuite", env_params={"size": row.size}, num_seeds=num_seeds, seed=seed,
        coefficient=[0.0, COEFFICIENT], eval_episodes=1, num_reports=1, progress=False,
        **row.options,
    )  # fmt: skip
    return (run.evaluation["returns"][..., 0] > 0.9).sum(axis=1)  # DeepSea is deterministic


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="rows of the table (all): " + ", ".join(ROWS))
    parser.add_argument("--num-seeds", type=int, default=10, help="seeds of each agent (10)")
    parser.add_argument("--first-seed", type=int, default=0, help="random seed of the runs (0)")
    parser.add_argument("--output", help="file for the table as markdown")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"unknown row {unknown.pop()}: choose from {', '.join(ROWS)}.")
    table = Table(
        "DeepSea", f"Seeds of {options.num_seeds} that solve it, and Fisher's exact test.",
        "row", ">episodes", ">without RND", ">with RND", ">p", "verdict", ">seconds",
    )  # fmt: skip
    num_failed = 0
    for name in options.rows or ROWS:
        start, row, n = time.perf_counter(), ROWS[name], options.num_seeds
        without, with_rnd = num_solved(row, n, options.first_seed)
        counts = [[with_rnd, n - with_rnd], [without, n - without]]
        p = stats.fisher_exact(counts, alternative="greater").pvalue
        passed = with_rnd >= 0.8 * n and without < 0.5 * n
        num_failed += not passed
        table.add(
            name, f"{row.options['total_timesteps'] // row.size:,}", str(without), str(with_rnd),
            f"{p:.1g}", "pass" if passed else "FAIL", f"{time.perf_counter() - start:.0f}",
        )  # fmt: skip
    line = harness.machine(measure.facts())
    print(line, table.text(), sep="\n\n", flush=True)
    harness.write(options.output, "Exploration", line, [table])
    return int(num_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
