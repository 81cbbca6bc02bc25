"""Draws the figures of docs/continuous.md from runs of the tuned settings in configs/.

    python benchmarks/continuous_figures.py                  all figures, some minutes
    python benchmarks/continuous_figures.py arm car          some figures by name

Each is written to docs/figures/NAME.png.
"""

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import rljax
from rljax.agents.continuous import make_critics
from rljax.envs import car as car_task
from rljax.envs.wrapped import innermost
from rljax.experiment.make_plan import make_plan, plan_from_record
from rljax.networks.continuous import critic_network
from rljax.results.figures import GREY, PALETTE
from rljax.results.statistics import iqm_curve
from rljax.training.learner import make_learner
from rljax.types import sample_one

DIRECTORY = Path(__file__).parent.parent / "docs" / "figures"
AGENTS = ("ddpg", "td3", "sac")


@cache
def trained(agent: str, env_id: str) -> rljax.Result:
    """Returns the runs of the tuned setting of an agent, trained once."""
    return rljax.train(**rljax.tuned(agent, env_id), progress=False, eval_episodes=0)


def continuous() -> Figure:
    """Learning curves of the three algorithms on Pendulum-v1."""
    return rljax.plot_results([trained(agent, "Pendulum-v1") for agent in AGENTS])


def overestimation() -> Figure:
    """The critic's value of the start of an episode, and the discounted return received."""
    figure, axes = panels(2, "discounted return received", "value by the critic")
    for axis, agent, color in zip(axes, ("ddpg", "td3"), PALETTE, strict=False):
        estimate, received = start_values(trained(agent, "Pendulum-v1"))
        low = float(min(estimate.min(), received.min()))
        axis.plot([low, 0], [low, 0], color=GREY, linewidth=0.8)
        axis.scatter(received, estimate, s=5, alpha=0.4, color=color, linewidths=0)
        error = float((estimate - received).mean())
        axis.set_title(f"{agent}: mean error {error:+.1f}", fontsize=9)
    return figure


def start_values(run: rljax.Result, num_episodes: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Returns estimated values and discounted returns of greedy episodes, `[seeds * episodes]`.

    Episodes have 400 steps, so that the rest of the discounted sum is negligible.
    """
    plan = plan_from_record(run.config | {"env_params": {"max_episode_steps": 400}})
    env = plan.build_env(num_episodes)
    agent = plan.make_agent(plan.config, env)
    critic = critic_network(None, plan.config, env.spec)
    q_values = critic.apply if plan.agent == "ddpg" else make_critics(critic, 2).q_values

    def one_seed(state, key):
        env_state, obs = env.reset(key)
        action = agent.greedy(state, obs, key) / 2.0  # the torques of Pendulum-v1 are in [-2, 2]
        estimate = q_values(state.params.critic, obs, action).reshape(-1, num_episodes).mean(axis=0)

        def step(carry, key):
            env_state, obs = carry
            action = agent.greedy(state, obs, key)
            env_state, step = env.step(env_state, action, sample_one(env.sample_noise, key))
            return (env_state, step.obs), step.reward

        _, reward = jax.lax.scan(step, (env_state, obs), jax.random.split(key, 400))
        discount = plan.config.gamma ** jnp.arange(400.0)
        return estimate, (discount[:, None] * reward).sum(axis=0)

    keys = jax.random.split(jax.random.key(1), plan.num_seeds)
    estimate, received = jax.jit(jax.vmap(one_seed))(run.state.agent, keys)
    return np.asarray(estimate).ravel(), np.asarray(received).ravel()


def temperature() -> Figure:
    """Temperature and entropy of SAC during training."""
    run = trained("sac", "Pendulum-v1")
    names = {"losses/alpha": "temperature alpha", "losses/entropy": "entropy of the policy"}
    figure, axes = panels(2, "environment steps", "")
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        draw_curve(axis, run.steps, run.metrics[name], PALETTE[2])
        axis.set_title(title, fontsize=9)
    axes[0].set_yscale("log")
    axes[1].axhline(-1.0, color=GREY, linestyle=":", linewidth=1, label="target")
    axes[1].legend(frameon=False, fontsize=8)
    return figure


def arm() -> Figure:
    """Fraction of the last 50 episodes of the two-joint arm that ended at the goal."""
    done, window = completed_episodes("ddpg", "rljax/TwoJointArm"), 50
    rate = np.stack([np.convolve(seed, np.ones(window) / window, mode="valid") for seed in done])
    figure, (axis,) = panels(1, "episode", "fraction that ended at the goal")
    draw_curve(axis, np.arange(window, window + rate.shape[1]), rate, PALETTE[0])
    axis.axhline(0.8, color=GREY, linestyle=":", linewidth=1)
    axis.set_ylim(0, 1.02)
    return figure


def completed_episodes(agent: str, env_id: str) -> np.ndarray:
    """Trains the tuned setting. Returns whether each episode terminated, `[seeds, episodes]`.

    Of the episodes of each seed, as many as the seed with the fewest completed.
    """
    settings = rljax.tuned(agent, env_id)
    plan = make_plan(settings.pop("agent"), settings.pop("env"), **settings)
    env = plan.build_env(plan.config.num_envs)
    learner = make_learner(plan.make_agent(plan.config, env), env, plan.config.num_steps)

    def one_seed(key):
        def step(state, _):
            state, metrics = learner.step(state)
            length = metrics["charts/episodic_length"]
            return state, (length.weight, length.total)

        return jax.lax.scan(step, learner.init(key), length=plan.config.num_updates)[1]

    keys = plan.run_inits().key
    ended, length = jax.tree.map(np.asarray, jax.jit(jax.vmap(one_seed))(keys))
    limit = env.spec.max_episode_steps
    done = [seed[ends > 0] < limit for seed, ends in zip(length, ended, strict=True)]
    return np.stack([seed[: min(map(len, done))] for seed in done])


def car() -> Figure:
    """The path of the car by the greedy policy of each seed."""
    run = trained("ddpg", "rljax/Car2D")
    plan = plan_from_record(run.config)
    env = plan.build_env(1)
    agent = plan.make_agent(plan.config, env)

    def path(state, key):
        def step(carry, _):
            env_state, obs = carry
            position = innermost(env_state).position[0]
            noise = sample_one(env.sample_noise, key)
            env_state, step = env.step(env_state, agent.greedy(state, obs, key), noise)
            return (env_state, step.obs), (position, step.terminated[0])

        return jax.lax.scan(step, env.reset(key), length=env.spec.max_episode_steps)[1]

    keys = jax.random.split(jax.random.key(0), plan.num_seeds)
    positions, collided = jax.jit(jax.vmap(path))(run.state.agent, keys)
    figure, (axis,) = panels(1, "", "", width=4.0)
    low, high = car_task.OBSTACLE
    axis.add_patch(Rectangle((low, low), high - low, high - low, color="#DDDBD4"))
    for seed, (xy, ends) in enumerate(zip(positions, np.asarray(collided), strict=True)):
        stop = int(ends.argmax()) + 1 if ends.any() else len(ends)
        color = PALETTE[seed % len(PALETTE)]
        axis.plot(*np.asarray(xy[:stop]).T, color=color, linewidth=0.7, alpha=0.8)
        if ends.any():
            axis.plot(*np.asarray(xy[stop - 1]), "x", color=color)
    axis.plot(*car_task.START, "o", color="black", markersize=4)
    axis.set(xlim=(0, car_task.SIZE), ylim=(0, car_task.SIZE), aspect="equal", xticks=[], yticks=[])
    survived = int((~np.asarray(collided).any(axis=1)).sum())
    axis.set_title(f"{survived} of {plan.num_seeds} seeds drive 600 steps", fontsize=9)
    return figure


def panels(count: int, x_label: str, y_label: str, width: float = 3.2) -> tuple[Figure, list[Any]]:
    """Returns a figure with panels side by side."""
    figure = Figure(figsize=(width * count, 2.8 if width < 4 else 4.0), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for axis in axes:
        axis.set_xlabel(x_label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(y_label)
    return figure, axes


def draw_curve(axis: Any, x: np.ndarray, values: np.ndarray, color: str) -> None:
    """Draws the interquartile mean over seeds `[seeds, P]` and its 95 % interval."""
    mean, low, high = iqm_curve(values)
    axis.plot(x, mean, color=color)
    axis.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


FIGURES: dict[str, Callable[[], Figure]] = {
    "continuous": continuous, "overestimation": overestimation, "temperature": temperature,
    "arm": arm, "car": car,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"figures: {', '.join(FIGURES)}")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - set(FIGURES)):
        parser.error(f"there is no figure `{unknown[0]}`; the figures are {', '.join(FIGURES)}")
    for name in names or FIGURES:
        figure = FIGURES[name]()
        figure.savefig(DIRECTORY / f"{name}.png", dpi=150)
        print(DIRECTORY / f"{name}.png")


if __name__ == "__main__":
    main()
