"""The effect of three components of DQN: many seeds with and without each, and a verdict.

    python benchmarks/dqn_components.py --output figures                 all three
    python benchmarks/dqn_components.py overestimation --num-seeds 32

overestimation  Pendulum with 11 torques and rewards / 10. No true value exceeds 0; the estimates of
                DQN exceed it by more than those of double DQN (https://arxiv.org/abs/1509.06461)
priorities      MountainCar with +10 at the flag and no time limit: steps until the flag has been
                reached 20 times, with prioritized (https://arxiv.org/abs/1511.05952) and uniform
                replay
dueling         Pendulum with 25 torques: total reward during training, with a dueling network
                (https://arxiv.org/abs/1511.06581) and a plain one

All networks have one hidden layer of 20 units; the optimizer is RMSProp. The exit code is 1 if a
component does not have its published effect.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lib import harness

sys.path.insert(0, str(harness.REPOSITORY))  # this checkout

import flax.linen as nn
import jax.numpy as jnp
import optax
from scipy import stats

import rljax
from rljax.agents.dqn import DQNConfig, dqn
from rljax.replay import prioritized
from rljax.types import Env, Mean, identity

RMSPROP = {"decay": 0.9, "eps": 1e-10}


class Streams(nn.Module):
    """A hidden layer, then a linear layer, or linear value and advantage streams."""

    num_actions: int
    dueling: bool = False
    hidden: int = 20

    @nn.compact
    def __call__(self, obs):
        x = nn.relu(nn.Dense(self.hidden)(obs))
        advantage = nn.Dense(self.num_actions)(x)
        if not self.dueling:
            return advantage
        return nn.Dense(1)(x) + advantage - advantage.mean(axis=-1, keepdims=True)


def instrumented_dqn(config, spec, *, network=None, optimizer=None, replay=None, average=identity):
    """DQN that also reports the maximum action value and the rate of terminations."""
    agent = dqn(config, spec, network=network, optimizer=optimizer, replay=replay, average=average)

    def update(state, trajectory, key):
        max_q = network.apply(state.params, trajectory.obs).max(axis=-1)
        num_terminated = trajectory.terminated.sum().astype(jnp.float32)
        state, metrics = agent.update(state, trajectory, key)
        return state, {
            **metrics,
            "charts/max_q": max_q.mean(),
            "charts/terminations": Mean(num_terminated, jnp.float32(1)),
        }

    return agent._replace(update=update)


def discrete_torques(env: Env, count: int) -> Env:
    """Pendulum with `count` evenly spaced torques as discrete actions and a tenth of the reward."""
    low, high = float(np.min(env.spec.action_low)), float(np.max(env.spec.action_high))

    def step(state, action, key):
        torque = low + (high - low) * action / (count - 1)
        state, step = env.step(state, torque.reshape(env.spec.action_shape), key)
        return state, step._replace(reward=step.reward / 10)

    spec = env.spec._replace(
        num_actions=count, action_shape=(), env_id=f"Pendulum, {count} torques"
    )
    return env._replace(spec=spec, step=step)


def reward_at_flag(env: Env) -> Env:
    """MountainCar with a reward of +10 for the step that reaches the flag."""

    def step(state, action, key):
        state, step = env.step(state, action, key)
        return state, step._replace(reward=jnp.where(step.terminated, 10.0, step.reward))

    return env._replace(step=step)


def train(env: Env, num_seeds: int, num_reports: int, learning_rate: float, **options: Any) -> Any:
    """Trains one variant: a gradient step at every step of one environment."""
    return rljax.train(
        (DQNConfig, instrumented_dqn), env, num_seeds=num_seeds, num_reports=num_reports,
        progress=False, eval_episodes=0, num_envs=1, num_steps=1, train_frequency=1, batch_size=32,
        gamma=0.9, n_step=1, normalize_obs=False, exploration_repeat=1,
        optimizer=optax.rmsprop(learning_rate, **RMSPROP), **options,
    )  # fmt: skip


def overestimation(num_seeds: int) -> tuple[str, bool, dict[str, Any]]:
    env = discrete_torques(rljax.make("Pendulum-v1"), 11)
    max_q, curves = {}, {}
    for name, double in (("DQN", False), ("Double DQN", True)):
        run = train(
            env, num_seeds, 23, 0.005, network=Streams(11), double=double, total_timesteps=23_000,
            buffer_size=3000, learning_starts=3000, target_update_interval=200, eps_end=0.1,
            exploration_fraction=3900 / 23_000,
        )  # fmt: skip
        curves[name] = run.steps, run.metrics["charts/max_q"]
        max_q[name] = run.metrics["charts/max_q"][:, -5:].mean(axis=1)  # the last 5,000 steps
    plain, double = (max_q[name].mean() for name in ("DQN", "Double DQN"))
    test = stats.mannwhitneyu(max_q["DQN"], max_q["Double DQN"], alternative="greater")
    message = (
        f"mean of the maximum value over the last 5,000 steps: DQN {plain:.3f}, Double DQN "
        f"{double:.3f} (no true value is above 0); p = {test.pvalue:.2g}"
    )
    return message, bool(plain > double and double <= 0.1), curves


def priorities(num_seeds: int) -> tuple[str, bool, dict[str, Any]]:
    env = reward_at_flag(rljax.make("MountainCar-v0", max_episode_steps=10**9))
    total, target, num_reports = 150_000, 20, 600
    steps, curves = {}, {}
    for name, replay in (("uniform", None), ("prioritized", prioritized(10_000, 32, 0.6, 0.01))):
        pieces = {} if replay is None else {"replay": replay}
        run = train(
            env, num_seeds, num_reports, 0.005, network=Streams(3), total_timesteps=total,
            buffer_size=10_000, learning_starts=10_000, target_update_interval=500, eps_end=0.1,
            exploration_fraction=28_000 / total, **pieces,
        )  # fmt: skip
        visits = np.cumsum(run.metrics["charts/terminations"] * (total // num_reports), axis=1)
        reached = visits >= target - 0.5
        steps[name] = np.where(reached.any(1), run.steps[reached.argmax(1)], total + 1)
        curves[name] = run.steps, visits
    a, b = steps["prioritized"], steps["uniform"]
    test = stats.mannwhitneyu(a, b, alternative="less")
    message = (
        f"median steps until the flag was reached {target} times: prioritized {np.median(a):,.0f}, "
        f"uniform {np.median(b):,.0f}; within {total:,} steps by {(a <= total).sum()} and "
        f"{(b <= total).sum()} of {num_seeds} seeds; p = {test.pvalue:.2g}"
    )
    return message, bool(np.median(a) < np.median(b) and test.pvalue < 0.05), curves


def dueling(num_seeds: int) -> tuple[str, bool, dict[str, Any]]:
    env = discrete_torques(rljax.make("Pendulum-v1"), 25)
    total_reward, curves = {}, {}
    for name, is_dueling in (("plain", False), ("dueling", True)):
        run = train(
            env, num_seeds, 18, 0.001, network=Streams(25, is_dueling), total_timesteps=18_000,
            buffer_size=3000, learning_starts=3000, target_update_interval=200, eps_end=0.1,
            exploration_fraction=3900 / 18_000,
        )  # fmt: skip
        reward = run.metrics["charts/reward"][:, 3:] * 1000  # 15,000 steps of training
        total_reward[name] = reward.sum(axis=1)
        curves[name] = run.steps[3:], np.cumsum(reward, axis=1)
    plain, streams = total_reward["plain"], total_reward["dueling"]
    test = stats.mannwhitneyu(streams, plain, alternative="greater")
    message = (
        f"mean total reward in 15,000 steps of training: dueling {streams.mean():.0f}, plain "
        f"{plain.mean():.0f}; p = {test.pvalue:.2g}"
    )
    return message, bool(streams.mean() > plain.mean()), curves


EXPERIMENTS = {"overestimation": overestimation, "priorities": priorities, "dueling": dueling}
LABELS = {
    "overestimation": "maximum value", "priorities": "times the flag was reached",
    "dueling": "total reward",
}  # fmt: skip


def plot(name: str, curves: dict[str, Any], directory: Path) -> None:
    """Draws the median and the quartiles of each variant."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for variant, (steps, values) in curves.items():
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        (line,) = axes.plot(steps, middle, label=variant)
        axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
    axes.set(xlabel="environment steps", ylabel=LABELS[name])
    axes.legend()
    directory.mkdir(parents=True, exist_ok=True)
    figure.savefig(directory / f"{name}.png", dpi=150)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "experiments", nargs="*", help="names of experiments (all): " + ", ".join(EXPERIMENTS)
    )
    parser.add_argument("--num-seeds", type=int, default=20, help="seeds of each variant (20)")
    parser.add_argument("--output", type=Path, help="directory for the figures")
    options = parser.parse_args()
    if unknown := set(options.experiments) - set(EXPERIMENTS):
        parser.error(f"unknown experiment {unknown.pop()}: choose from {', '.join(EXPERIMENTS)}.")
    num_failed = 0
    for name in options.experiments or EXPERIMENTS:
        message, holds, curves = EXPERIMENTS[name](options.num_seeds)
        num_failed += not holds
        print(f"{name}: {message}\n  {'confirmed' if holds else 'NOT CONFIRMED'}", flush=True)
        if options.output:
            plot(name, curves, options.output)
    return int(num_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
