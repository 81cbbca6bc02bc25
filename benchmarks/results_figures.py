"""Draws the figures of docs/results.md.

    python benchmarks/results_figures.py                  all figures, about two minutes
    python benchmarks/results_figures.py heatmap          some figures by name

Each is written to docs/figures/NAME.png.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

import rljax

DIRECTORY = Path(__file__).parent.parent / "docs" / "figures"
ENV_IDS = ("CartPole-v1", "Acrobot-v1")
LOW = {"CartPole-v1": 22, "Acrobot-v1": -500}  # of a random policy
HIGH = {"CartPole-v1": 500, "Acrobot-v1": -70}


def report() -> Figure:
    """Three algorithms on two environments, with default settings."""
    runs = [
        rljax.train(
            agent, env_id, num_seeds=10, total_timesteps=100_000, num_reports=40, progress=False,
            eval_interval=10_000, eval_episodes=20,
        )
        for agent in ("ppo", "a2c", "pqn")
        for env_id in ENV_IDS
    ]  # fmt: skip
    print(rljax.compare(runs, low=LOW, high=HIGH))
    return rljax.report(runs, LOW, HIGH)


def heatmap() -> Figure:
    """The final return of PPO over two hyperparameters: 24 settings, 5 seeds, one program."""
    run = rljax.train(
        "ppo", "CartPole-v1", num_seeds=5, total_timesteps=20_000, progress=False,
        learning_rate=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2], gamma=[0.8, 0.9, 0.99, 0.999],
    )  # fmt: skip
    print(run.summary())
    return run.heatmap()


def stopped() -> Figure:
    """PPO, each seed stopped at an evaluation return of 475."""
    run = rljax.train(
        "ppo", "CartPole-v1", num_seeds=10, total_timesteps=20_000, num_reports=40, progress=False,
        eval_interval=1_000, eval_episodes=20, stop_at=475, stop_by="seed",
    )  # fmt: skip
    print(run.summary())
    return run.plot()


FIGURES: dict[str, Callable[[], Figure]] = {
    "report": report, "heatmap": heatmap, "stopped": stopped
}  # fmt: skip


def main() -> None:
    """Draws the figures that are named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIGURES))
    for name in parser.parse_args().names or FIGURES:
        path = DIRECTORY / f"{name}.png"
        FIGURES[name]().savefig(path, dpi=150)
        print(path)


if __name__ == "__main__":
    main()
