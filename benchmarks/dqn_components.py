"""What the parts of DQN are for, as experiments: many seeds of each side, a figure and a verdict.

    python benchmarks/notes_dqn.py --output figures                 all three
    python benchmarks/notes_dqn.py overestimation --num-seeds 32

overestimation  Pendulum, 11 torques, rewards / 10: no value is above 0, but DQN believes so more
                than Double DQN does
priorities      MountainCar, +10 at the flag, no time limit: after how many steps the flag has been
                reached 20 times, with prioritized replay and with uniform
dueling         Pendulum, 25 torques: the reward gathered while learning, with two streams and one

Sizes and rates are those of a known tutorial on these parts (one hidden layer of 20, RMSProp).
The exit code is 1 where a verdict is against what is said of the part.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import harness
import numpy as np

sys.path.insert(0, str(harness.REPOSITORY))  # the checkout that this file stands in

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
    """A hidden layer, and then a linear one, or one for the state and one for actions."""

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


def watched(config, spec, *, network=None, optimizer=None, replay=None, average=identity):
    """DQN that also reports the largest value of what it sees, and how often episodes end."""
    agent = dqn(config, spec, network=network, optimizer=optimizer, replay=replay, average=average)

    def update(state, trajectory, key):
        values = network.apply(state.params, trajectory.obs).max(axis=-1)
        ended = trajectory.terminated.sum().astype(jnp.float32)
        more = {"charts/max_q": values.mean(), "charts/ends": Mean(ended, jnp.float32(1))}
        state, metrics = agent.update(state, trajectory, key)
        return state, {**metrics, **more}

    return agent._replace(update=update)


def torques(env: Env, count: int) -> Env:
    """Pendulum with `count` torques for actions, over all its range, and a tenth of the reward."""
    low, high = float(np.min(env.spec.action_low)), float(np.max(env.spec.action_high))

    def step(state, action, key):
        torque = low + (high - low) * action / (count - 1)
        state, step = env.step(state, torque.reshape(env.spec.action_shape), key)
        return state, step._replace(reward=step.reward / 10)

    spec = env.spec._replace(
        num_actions=count, action_shape=(), env_id=f"Pendulum, {count} torques"
    )
    return env._replace(spec=spec, step=step)


def flag(env: Env) -> Env:
    """MountainCar with a reward of +10 for the step that reaches the flag."""

    def step(state, action, key):
        state, step = env.step(state, action, key)
        return state, step._replace(reward=jnp.where(step.terminated, 10.0, step.reward))

    return env._replace(step=step)


def train(env: Env, seeds: int, num_reports: int, rate: float, **options: Any) -> Any:
    """One side of an experiment: a gradient step at every step of one environment."""
    return rljax.train(
        (DQNConfig, watched), env, num_seeds=seeds, num_reports=num_reports, progress=False,
        eval_episodes=0, num_envs=1, num_steps=1, train_frequency=1, batch_size=32, gamma=0.9,
        optimizer=optax.rmsprop(rate, **RMSPROP), **options,
    )  # fmt: skip


def overestimation(seeds: int) -> tuple[str, bool, dict[str, Any]]:
    env = torques(rljax.make("Pendulum-v1"), 11)
    largest, curves = {}, {}
    for name, double in (("DQN", False), ("Double DQN", True)):
        run = train(
            env, seeds, 23, 0.005, network=Streams(11), double=double, total_timesteps=23_000,
            buffer_size=3000, learning_starts=3000, target_update_interval=200, eps_end=0.1,
            exploration_fraction=3900 / 23_000,
        )  # fmt: skip
        curves[name] = run.steps, run.metrics["charts/max_q"]
        largest[name] = run.metrics["charts/max_q"][:, -5:].mean(axis=1)  # the last 5,000 steps
    plain, double = (largest[name].mean() for name in ("DQN", "Double DQN"))
    test = stats.mannwhitneyu(largest["DQN"], largest["Double DQN"], alternative="greater")
    told = (
        f"mean of the largest value over the last 5,000 steps: DQN {plain:.3f}, Double DQN "
        f"{double:.3f} (no true value is above 0); p = {test.pvalue:.2g}"
    )
    return told, bool(plain > double and double <= 0.1), curves


def priorities(seeds: int) -> tuple[str, bool, dict[str, Any]]:
    env = flag(rljax.make("MountainCar-v0", max_episode_steps=10**9))
    total, wanted, num_reports = 150_000, 20, 600
    taken, curves = {}, {}
    for name, replay in (("uniform", None), ("prioritized", prioritized(10_000, 32, 0.6, 0.01))):
        pieces = {} if replay is None else {"replay": replay}
        run = train(
            env, seeds, num_reports, 0.005, network=Streams(3), total_timesteps=total,
            buffer_size=10_000, learning_starts=10_000, target_update_interval=500, eps_end=0.1,
            exploration_fraction=28_000 / total, **pieces,
        )  # fmt: skip
        ends = np.cumsum(run.metrics["charts/ends"] * (total // num_reports), axis=1)
        reached = ends >= wanted - 0.5
        taken[name] = np.where(reached.any(1), run.steps[reached.argmax(1)], total + 1)
        curves[name] = run.steps, ends
    a, b = taken["prioritized"], taken["uniform"]
    test = stats.mannwhitneyu(a, b, alternative="less")
    told = (
        f"median steps until the flag was reached {wanted} times: prioritized {np.median(a):,.0f}, "
        f"uniform {np.median(b):,.0f}; within {total:,} steps by {(a <= total).sum()} and "
        f"{(b <= total).sum()} of {seeds} seeds; p = {test.pvalue:.2g}"
    )
    return told, bool(np.median(a) < np.median(b) and test.pvalue < 0.05), curves


def dueling(seeds: int) -> tuple[str, bool, dict[str, Any]]:
    env = torques(rljax.make("Pendulum-v1"), 25)
    gathered, curves = {}, {}
    for name, streams in (("plain", False), ("dueling", True)):
        run = train(
            env, seeds, 18, 0.001, network=Streams(25, streams), total_timesteps=18_000,
            buffer_size=3000, learning_starts=3000, target_update_interval=200, eps_end=0.1,
            exploration_fraction=3900 / 18_000,
        )  # fmt: skip
        reward = run.metrics["charts/reward"][:, 3:] * 1000  # 15,000 steps of learning
        gathered[name] = reward.sum(axis=1)
        curves[name] = run.steps[3:], np.cumsum(reward, axis=1)
    plain, two = gathered["plain"], gathered["dueling"]
    test = stats.mannwhitneyu(two, plain, alternative="greater")
    told = (
        f"mean reward gathered in 15,000 steps of learning: dueling {two.mean():.0f}, plain "
        f"{plain.mean():.0f}; p = {test.pvalue:.2g}"
    )
    return told, bool(two.mean() > plain.mean()), curves


EXPERIMENTS = {"overestimation": overestimation, "priorities": priorities, "dueling": dueling}
LABELS = {
    "overestimation": "largest value", "priorities": "times at the flag",
    "dueling": "reward so far",
}  # fmt: skip


def draw(name: str, curves: dict[str, Any], folder: Path) -> None:
    """The median of each side and its quartiles."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for side, (steps, values) in curves.items():
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
        (line,) = axes.plot(steps, middle, label=side)
        axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
    axes.set(xlabel="environment steps", ylabel=LABELS[name])
    axes.legend()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=150)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", help="of " + ", ".join(EXPERIMENTS))
    parser.add_argument("--num-seeds", type=int, default=20, help="of each side (20)")
    parser.add_argument("--output", type=Path, help="a folder for figures")
    options = parser.parse_args()
    if unknown := set(options.experiments) - set(EXPERIMENTS):
        parser.error(f"there is no {unknown.pop()}: there are {', '.join(EXPERIMENTS)}.")
    against = 0
    for name in options.experiments or EXPERIMENTS:
        told, holds, curves = EXPERIMENTS[name](options.num_seeds)
        against += not holds
        print(f"{name}: {told}\n  {'it holds' if holds else 'IT DOES NOT HOLD'}", flush=True)
        if options.output:
            draw(name, curves, options.output)
    return int(against > 0)


if __name__ == "__main__":
    sys.exit(main())
