"""Draws the figures of docs/models.md and prints their numbers.

    python benchmarks/model_based_figures.py                    all figures, about half an hour
    python benchmarks/model_based_figures.py calibration        some figures by name
    python benchmarks/model_based_figures.py --runs DIRECTORY   keeps the learning curves there

Each is written to docs/figures/NAME.png. Learning curves that are in DIRECTORY are not trained
again.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import rljax
from rljax.agents.calibration import calibration as compare
from rljax.agents.ensemble import make_ensemble
from rljax.experiment.make_plan import plan_from_record
from rljax.results.figures import GREY, PALETTE
from rljax.results.statistics import iqm_curve
from rljax.training.learner import rollout

DIRECTORY = Path(__file__).parent.parent / "docs" / "figures"
SAC = {"num_seeds": 8, "num_reports": 50}
RUNS: dict[str, dict[str, Any]] = {  # tuned settings, and changes of them
    "mbpo": {"agent": "mbpo", "num_reports": 25},
    "pets": {"agent": "pets", "num_reports": 15},
    "sac": {"agent": "sac", "total_timesteps": 10_000, **SAC},
    "sac, 10 gradient steps": {"agent": "sac", "total_timesteps": 5_000, "gradient_steps": 10,
                               "learning_starts": 256, **SAC | {"num_reports": 25}},
}  # fmt: skip
LEVELS, LENGTH, NUM_SEQUENCES = (0.5, 0.9), 10, 256


def trained(name: str, runs: Path | None) -> rljax.Result:
    """Returns the runs of one setting on Pendulum-v1, loaded from `runs` if they are there."""
    directory = runs and runs / name.replace(", ", "-").replace(" ", "-")
    if directory and (directory / "result.json").is_file():
        return rljax.load_result(directory)
    changes = dict(RUNS[name])
    settings = rljax.tuned(changes.pop("agent"), "Pendulum-v1") | changes
    run = rljax.train(**settings, progress=False, eval_episodes=0)
    if directory:
        run.save(directory)
    return run


def model_based(runs: Path | None) -> Figure:
    """Learning curves on Pendulum-v1 against the real steps."""
    figure, (axis,) = panels(1, "environment steps", "return")
    for name, color in zip(RUNS, PALETTE, strict=False):
        run = trained(name, runs)
        values = np.asarray(run.returns)
        draw_curve(axis, run.steps, values, color, f"{name}")
        print(f"{name}: {run.num_seeds} seeds, {run.seconds:.0f} s of training")
        for threshold in (-300, -250):
            reached = [first_step(run.steps, seed, threshold) for seed in values]
            print(f"  first report with a return of {threshold}: {reached}")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def first_step(steps: np.ndarray, returns: np.ndarray, threshold: float) -> int | None:
    """Returns the steps at the first report whose mean return reaches a threshold, or None."""
    reached = np.flatnonzero(returns >= threshold)
    return int(steps[reached[0]]) if len(reached) else None


def calibration(runs: Path | None) -> Figure:
    """Errors and coverage of a model of Pendulum-v1, 1 to 10 steps ahead."""
    del runs
    settings: dict[str, Any] = rljax.tuned("mbpo", "Pendulum-v1")
    settings |= {"num_seeds": 4, "total_timesteps": 2_000}
    run = rljax.train(**settings, progress=False, eval_episodes=0)
    plan = plan_from_record(run.config)
    env = plan.build_env(NUM_SEQUENCES)
    agent, spec = plan.make_agent(plan.config, env), env.spec
    kinds = {"ensemble": 1.0, "ensemble, variance ignored": 0.0, "one network": 1.0}

    def one_seed(state, key):
        reset_key, start_key, data_key, *keys = jax.random.split(key, 3 + len(kinds))
        env_state, obs = env.reset(reset_key)
        # the steps before are not used, so that the sequences start at all times of an episode
        env_state, obs, *_ = rollout(env, agent, state, env_state, obs, start_key, 50)
        _, _, sequences, _ = rollout(env, agent, state, env_state, obs, data_key, LENGTH)
        results = []
        for (name, noise), key in zip(kinds.items(), keys, strict=True):
            config = plan.config.__class__(**vars(plan.config) | {"model_noise": noise})
            ensemble = make_ensemble(config, spec)
            members = ensemble.elites(state.model)
            if name == "one network":
                members = members._replace(params=jax.tree.map(lambda x: x[:1], members.params))
            results.append(
                compare(ensemble, members, sequences, key, levels=LEVELS, num_samples=100)
            )
        return results

    keys = jax.random.split(jax.random.key(1), settings["num_seeds"])
    results = jax.jit(jax.vmap(one_seed))(run.state.agent, keys)
    figure, axes = panels(3, "steps ahead", "")
    ahead = np.arange(1, LENGTH + 1)
    for (name, _), result, color in zip(kinds.items(), results, PALETTE, strict=False):
        curves = [result.error, *jnp.moveaxis(result.coverage, -1, 0)]
        for axis, values in zip(axes, curves, strict=True):
            draw_curve(axis, ahead, np.asarray(values), color, name)
        print(f"{name}: error {np.asarray(result.error).mean(axis=0).round(4)[[0, -1]]}, coverage "
              f"{np.asarray(result.coverage).mean(axis=0).round(3)[[0, -1]].tolist()} "
              f"of {LEVELS}, 1 and {LENGTH} steps ahead")  # fmt: skip
    axes[0].set_title("error, in standard deviations", fontsize=9)
    axes[0].set_yscale("log")
    axes[0].legend(frameon=False, fontsize=7)
    for axis, level in zip(axes[1:], LEVELS, strict=True):
        axis.axhline(level, color=GREY, linestyle=":", linewidth=1)
        axis.set_ylim(0, 1.02)
        axis.set_title(f"fraction inside the {level:.0%} interval", fontsize=9)
    return figure


def variance(runs: Path | None) -> Figure:
    """Learning curves of MBPO with its ensemble, without variances, and with one network."""
    figure, (axis,) = panels(1, "environment steps", "return")
    changes = {
        "ensemble": {}, "ensemble, variance ignored": {"model_noise": 0.0},
        "one network": {"num_models": 1, "num_elites": 1},
        "one network, variance ignored": {"num_models": 1, "num_elites": 1, "model_noise": 0.0},
    }  # fmt: skip
    for (name, changed), color in zip(changes.items(), PALETTE, strict=False):
        RUNS[f"mbpo {name}"] = {
            "agent": "mbpo",
            "num_reports": 15,
            "total_timesteps": 3_000,
        } | changed
        run = trained(f"mbpo {name}", runs)
        values = np.asarray(run.returns)
        draw_curve(axis, run.steps, values, color, name)
        late = np.nanmean(values[:, -5:], axis=1)
        print(f"{name}: mean return of the last third {late.mean():.0f}, by seed {late.round()}")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def panels(count: int, x_label: str, y_label: str) -> tuple[Figure, Any]:
    """Returns a figure with `count` panels side by side, and their axes."""
    figure = Figure(figsize=(max(3.4 * count, 4.6), 2.9), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, count))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel(x_label)
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel(y_label)
    return figure, axes


def draw_curve(axis: Any, x: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    """Draws the interquartile mean over seeds `[seeds, P]` and its 95 % interval.

    Reports in which an episode of some seed did not end are left out.
    """
    known = ~np.isnan(values).any(axis=0)
    mean, low, high = iqm_curve(values[:, known])
    axis.plot(x[known], mean, color=color, label=label)
    axis.fill_between(x[known], low, high, color=color, alpha=0.2, linewidth=0)


FIGURES: dict[str, Callable[[Path | None], Figure]] = {
    "model_based": model_based, "calibration": calibration, "variance": variance,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"figures: {', '.join(FIGURES)}")
    parser.add_argument("--runs", type=Path, help="directory of the learning curves")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(FIGURES)):
        parser.error(f"there is no figure `{unknown[0]}`; the figures are {', '.join(FIGURES)}")
    for name in options.names or FIGURES:
        figure = FIGURES[name](options.runs)
        figure.savefig(DIRECTORY / f"{name}.png", dpi=150)
        print(DIRECTORY / f"{name}.png")


if __name__ == "__main__":
    main()
