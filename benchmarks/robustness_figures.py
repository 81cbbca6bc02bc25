"""Draws the figures of docs/robustness.md: every seed before and after a change of the defaults.

    python benchmarks/robustness_figures.py                     all figures, about six minutes
    python benchmarks/robustness_figures.py a2c                 some of them

Each is written to docs/figures/robustness_NAME.png. The number of seeds that solve the task is
printed. The seeds are those that the defaults were chosen on.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lib import harness
from matplotlib.figure import Figure

sys.path.insert(0, str(harness.REPOSITORY))  # this checkout

import rljax
from rljax.results.figures import GREY, PALETTE

DIRECTORY = Path(__file__).parent.parent / "docs" / "figures"
NUM_SEEDS = 32
RAW = {"normalize_obs": False, "normalize_reward": False}


class Study(NamedTuple):
    """The defaults of an agent before a change, and what shows why they failed.

    Attributes:
      agent: name of the agent.
      env_id: id of the environment.
      before: options of the earlier defaults.
      threshold: return from which on the task counts as solved.
      metric: a metric that tells the failed seeds from the others.
    """

    agent: str
    env_id: str
    before: Mapping[str, Any]
    threshold: float
    metric: str


STUDIES = {
    "a2c": Study("a2c", "Acrobot-v1", RAW, -100, "losses/entropy"),
    "ppo": Study(
        "ppo", "Pendulum-v1",
        {**RAW, "num_steps": 64, "learning_rate": 2e-3, "num_minibatches": 4}, -250,
        "losses/clip_fraction",
    ),
    "dqn": Study(
        "dqn", "CartPole-v1",
        {"n_step": 1, "anneal_lr": False, "normalize_obs": False, "eps_end": 0.05,
         "exploration_repeat": 1},
        475, "losses/q_value",
    ),
}  # fmt: skip


def draw(name: str, study: Study) -> Figure:
    """Trains with the earlier and with the present defaults, and draws each seed."""
    figure = Figure(figsize=(9, 4.6))
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, options in enumerate((study.before, {})):
        run = rljax.train(
            study.agent,
            study.env_id,
            num_seeds=NUM_SEEDS,
            num_reports=50,
            progress=False,
            **options,
        )
        (final,) = run.scores(evaluated=True)
        solved = final >= study.threshold
        label = "earlier defaults" if options else "defaults"
        title = f"{label}: {solved.sum()} of {NUM_SEEDS} seeds reach {study.threshold:g}"
        print(f"{name}: {title}; the lowest is {final.min():.4g}", flush=True)
        for row, metric in enumerate(("charts/episodic_return", study.metric)):
            for curve, is_solved in zip(run.metric(metric), solved, strict=True):
                color = GREY if is_solved else PALETTE[1]
                axes[row, column].plot(
                    run.steps, curve, color=color, alpha=0.4 if is_solved else 0.9, linewidth=0.8
                )
        axes[0, column].axhline(study.threshold, color="black", linewidth=0.6, linestyle="--")
        axes[0, column].set_title(title, fontsize=9)
        axes[1, column].set_xlabel("environment steps", fontsize=8)
    axes[0, 0].set_ylabel("return", fontsize=8)
    axes[1, 0].set_ylabel(study.metric.partition("/")[2].replace("_", " "), fontsize=8)
    for axis in np.ravel(axes):
        axis.tick_params(labelsize=7)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="figures (all): " + ", ".join(STUDIES))
    names = parser.parse_args().names or list(STUDIES)
    for name in names:
        if name not in STUDIES:
            parser.error(f"unknown figure {name!r}: choose from {', '.join(STUDIES)}.")
        draw(name, STUDIES[name]).savefig(DIRECTORY / f"robustness_{name}.png", dpi=150)


if __name__ == "__main__":
    main()
