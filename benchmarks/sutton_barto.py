"""Tabular agents beside published and exact results of the examples of Sutton and Barto (2018).

    python benchmarks/sutton_barto.py                       all studies, some minutes
    python benchmarks/sutton_barto.py cliff walk --output results
    python benchmarks/sutton_barto.py speed                 1,000 runs beside a Python loop

Every run trains for the same number of episodes, so slow runs are not cut short. `+-` is the
standard error over runs. The exit code is 1 if a result is out of its range.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from lib import harness, measure
from lib.harness import Table

sys.path.insert(0, str(harness.REPOSITORY))  # this checkout

import jax
import jax.numpy as jnp
from lib.tabular import Quantity, about, greedy_returns, judge, learn, make
from lib.tabular_speed import speed

from rljax.envs import worlds
from rljax.training.learner import train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "studies", nargs="*", metavar="STUDY", help=f"studies: {', '.join(STUDIES)} (all)"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="directory for the table")
    options = parser.parse_args()
    if unknown := sorted(set(options.studies) - STUDIES.keys()):
        parser.error(f"there is no study `{unknown[0]}`. Studies are {', '.join(STUDIES)}.")
    table = Table(
        "Tabular agents", "Means over runs, with their standard errors.",
        "quantity", ">mean", ">+-", ">minimum", ">maximum", "verdict", "source",
    )  # fmt: skip
    failed = 0
    for name in options.studies or STUDIES:
        start = time.perf_counter()
        for quantity in STUDIES[name]():
            failed += judge(name, quantity, table)
        table.remarks.append(f"{name}: {time.perf_counter() - start:.0f} s, including compilation")
    line = harness.machine(measure.facts())
    if options.output:
        harness.write(options.output / "sutton_barto.md", "Tabular agents", line, [table])
    print(f"\n{line}\n\n{table.text()}")
    return int(bool(failed))


def treasure() -> Iterator[Quantity]:
    """Q-learning on Treasure: values after 13 episodes, and episode lengths."""
    episodes = learn(
        "q_learning", "rljax/Treasure", 1000, 13, gamma=0.9, learning_rate=0.1,
        record=lambda state: state.agent.params.q[4, 1],
    )  # fmt: skip
    exact, source = 1 - 0.9**13, "1 - .9^13, exact"
    yield about("Q(4, right), minimum", episodes.recorded[:, -1].min(), exact, 1e-6, source)
    yield about("Q(4, right), maximum", episodes.recorded[:, -1].max(), exact, 1e-6, source)
    yield Quantity("steps of episodes 6 to 13", episodes.lengths[:, 5:].mean(axis=1), 5.4, 5.6)
    for i, expected in enumerate((29.7, 21.3, 14.2, 9.3, 6.4)):
        tolerance = max(0.15, 0.06 * expected)
        yield about(f"steps of episode {i + 1}", episodes.lengths[:, i], expected, tolerance)


def maze() -> Iterator[Quantity]:
    """Four agents on Maze with a small step size; episodes are truncated after 2000 steps."""
    options = {"gamma": 0.9, "learning_rate": 0.01, "env_params": {"max_episode_steps": 2000}}

    def run(name, num_episodes, **changes):
        changed = options | changes
        episodes = learn(name, "rljax/Maze", 200, num_episodes, **changed)
        greedy = greedy_returns(name, "rljax/Maze", episodes.state, max_steps=20, **changed)
        return np.asarray(episodes.returns) > 0, np.asarray(episodes.lengths), greedy > 0

    wins, _, greedy = run("q_learning", 100)
    yield about("Q-learning, success in episodes 1-10", wins[:, :10].mean(axis=1), 0.28, 0.04)
    yield about("Q-learning, success in the last 10", wins[:, -10:].mean(axis=1), 0.945, 0.02)
    yield Quantity("Q-learning, greedy success in 20 steps", greedy, 1.0)
    wins, lengths, _ = run("q_learning", 300, learning_rate=0.1)
    yield about("Q-learning, alpha .1, success", wins[:, -10:].mean(axis=1), 0.95, 0.02)
    yield about("Q-learning, alpha .1, steps", lengths[:, -10:].mean(axis=1), 6.5, 0.3)
    wins, _, greedy = run("dyna_q", 40, planning_steps=10, sampling="states")
    source = "a plain Python loop, 400 runs: .461"
    yield about("Dyna-Q, success in episodes 1-10", wins[:, :10].mean(axis=1), 0.47, 0.05, source)
    yield about("Dyna-Q, success in the last 10", wins[:, -10:].mean(axis=1), 0.945, 0.02)
    yield Quantity("Dyna-Q, greedy success in 20 steps", greedy, 1.0)
    # with this step size Sarsa keeps away from the pits, and so from the goal between them
    wins, lengths, greedy = run("sarsa", 100)
    yield about("Sarsa, success in the last 10", wins[:, -10:].mean(axis=1), 0.888, 0.06)
    yield about("Sarsa, steps of the last 10", lengths[:, -10:].mean(axis=1), 391, 120)
    yield Quantity("Sarsa, greedy success in 20 steps", greedy, high=0.9)
    wins, lengths, greedy = run("sarsa_lambda", 100, trace_lambda=0.9, trace="clearing")
    yield about("Sarsa(.9), success in the last 10", wins[:, -10:].mean(axis=1), 0.903, 0.04)
    yield about("Sarsa(.9), steps of the last 10", lengths[:, -10:].mean(axis=1), 92, 60)
    yield about("Sarsa(.9), greedy success in 20 steps", greedy, 0.95, 0.06)


def detour() -> Iterator[Quantity]:
    """MazeDQN: optimal paths start down or right; with epsilon = 0.1 down has the higher value."""
    options = {
        "gamma": 0.9, "learning_rate": 0.003, "eps_start": 1.0, "exploration_fraction": 0.3,
        "total_timesteps": 200_000, "env_params": {"features": False},
    }  # fmt: skip
    for name in ("sarsa", "q_learning"):
        q = learn(name, "rljax/MazeDQN", 100, 40_000, **options).state.agent.params.q[:, 0]
        low = 0.95 if name == "sarsa" else -np.inf
        yield Quantity(f"{name} prefers down to right", q[:, 1] > q[:, 2], low)
        down, right = ("exact: .70099", ".66155") if name == "sarsa" else ("exact: .729", ".729")
        yield Quantity(f"{name} Q(start, down)", q[:, 1], source=down)
        yield Quantity(f"{name} Q(start, right)", q[:, 2], source=right)


CLIFF = {"gamma": 1.0, "learning_rate": 0.5}


def cliff() -> Iterator[Quantity]:
    """Example 6.6: the mean return of the last 100 of 500 episodes."""
    env_id = "rljax/CliffWalking"
    for name, expected, tolerance in (
        ("q_learning", -49.3, 2), ("sarsa", -27.0, 2), ("expected_sarsa", -20.95, 0.7),
    ):  # fmt: skip
        episodes = learn(name, env_id, 300, 500, **CLIFF)
        yield about(name, episodes.returns[:, -100:].mean(axis=1), expected, tolerance)
        returns = greedy_returns(name, env_id, episodes.state, max_steps=200, **CLIFF)
        yield Quantity(f"{name}, greedy return", returns)


def windy() -> Iterator[Quantity]:
    """Example 6.5."""
    episodes = learn("sarsa", "rljax/WindyGridworld", 300, 500, gamma=1.0, learning_rate=0.5)
    count = (np.cumsum(episodes.lengths, axis=1) <= 8000).sum(axis=1)
    yield about("episodes in 8000 steps", count, 160, 8)
    length = episodes.lengths[:, -100:].mean(axis=1)
    yield about("steps of the last 100 of 500 episodes", length, 20.4, 0.6)


def dyna() -> Iterator[Quantity]:
    """Example 8.1: total steps of episodes 2 to 50, by the number of planning steps n."""
    for n, expected, second in ((0, 4233, 723), (5, 1026, 154), (50, 843, 41)):
        lengths = learn(
            "dyna_q", "rljax/DynaMaze", 60, 50, planning_steps=n, gamma=0.95, learning_rate=0.1
        ).lengths
        total = lengths[:, 1:].sum(axis=1)
        yield about(f"n = {n}, steps of episodes 2 to 50", total, expected, 0.15 * expected)
        yield about(f"n = {n}, steps of episode 2", lengths[:, 1], second, 0.25 * second)


def changing() -> Iterator[Quantity]:
    """Examples 8.2 and 8.3: total reward after the maze has changed."""
    options = {"gamma": 0.95, "learning_rate": 1.0}
    for world, num_steps, change_at, n, bonus in (
        ("BlockingMaze", 3000, 1000, 10, 1e-4), ("ShortcutMaze", 6000, 3000, 50, 1e-3),
    ):  # fmt: skip
        rewards = {}
        for name, more in (("dyna_q", {}), ("dyna_q_plus", {"bonus": bonus})):
            *_, learner = make(name, f"rljax/{world}", **options, planning_steps=n, **more)

            def run(key, learner=learner, num_steps=num_steps):
                return train(learner, key, num_steps, num_steps // 100)[1]["charts/reward"]

            keys = jax.random.split(jax.random.key(0), 30)
            reward = 100 * np.asarray(jax.jit(jax.vmap(run))(keys))
            rewards[name] = reward[:, change_at // 100 :].sum(axis=1)
            yield Quantity(f"{world}, {name}, reward after the change", rewards[name])
        difference = rewards["dyna_q_plus"] - rewards["dyna_q"].mean()
        yield Quantity(f"{world}, additional reward of Dyna-Q+", difference, 1.0)


def sweeping() -> Iterator[Quantity]:
    """Section 8.4: updates until the greedy path has at most 16 steps; the shortest has 14."""
    model = worlds.model("rljax/DynaMaze")
    next_state = jnp.asarray(model.transition.argmax(axis=-1), jnp.int32)
    start, goal = int(model.start.argmax()), 8

    def reaches_goal(q):
        def greedy_step(state, _):
            return jnp.where(state == goal, state, next_state[state, q[state].argmax()]), None

        return jax.lax.scan(greedy_step, jnp.int32(start), length=16)[0] == goal

    needed = {}
    for name, count in (
        ("dyna_q", lambda state: state.agent.planner.time * 6),  # one real and five planning
        ("prioritized_sweeping", lambda state: state.agent.planner.num_backups),
    ):
        episodes = learn(
            name, "rljax/DynaMaze", 50, 200, planning_steps=5, gamma=0.95, learning_rate=0.5,
            record=lambda state, count=count: (reaches_goal(state.agent.params.q), count(state)),
        )  # fmt: skip
        reached, num_updates = map(np.asarray, episodes.recorded)
        first = reached.argmax(axis=1)
        needed[name] = num_updates[np.arange(len(first)), first]
        yield Quantity(f"{name}, path found", reached.any(axis=1), 0.95)
        yield Quantity(f"{name}, updates", needed[name])
    ratio = np.median(needed["dyna_q"]) / np.median(needed["prioritized_sweeping"])
    yield Quantity("ratio of the medians, Dyna-Q / prioritized sweeping", ratio, 1.5)


def walk() -> Iterator[Quantity]:
    """The 19-state random walk (figures 7.2, 12.3, 12.6, 12.8): RMS error, first 10 episodes."""
    true_values = jnp.arange(-9, 10) / 10

    def rms_error(state):
        return jnp.sqrt(jnp.square(state.agent.params.v[1:-1] - true_values).mean())

    def run(name, **options):
        episodes = learn(name, "rljax/RandomWalk", 2000, 10, gamma=1.0, record=rms_error, **options)
        return episodes.recorded.mean(axis=1)

    *_, learner = make("td", "rljax/RandomWalk")
    error = float(rms_error(learner.init(jax.random.key(0))))
    yield about("RMS error of zeros", error, 0.5477226, 1e-6, "exact")
    means = {}
    for n, alpha, expected in (
        (1, 0.8, 0.3444), (2, 0.6, 0.2749), (4, 0.4, 0.2619), (8, 0.2, 0.2752), (16, 0.1, 0.3177),
    ):  # fmt: skip
        errors = run("n_step_td", n_step=n, learning_rate=alpha)
        means[n] = errors.mean()
        yield about(f"n = {n}, alpha = {alpha}", errors, expected, 0.012)
    yield about("n of the smallest error", min(means, key=means.__getitem__), 4, 0)
    for trace_lambda, alpha, expected in (
        (0.0, 0.8, 0.3651), (0.4, 0.7, 0.2890), (0.8, 0.4, 0.2595), (0.9, 0.2, 0.2836),
    ):  # fmt: skip
        errors = run("lambda_return", trace_lambda=trace_lambda, learning_rate=alpha)
        yield about(f"lambda-return({trace_lambda}), alpha = {alpha}", errors, expected, 0.012)
    for trace_lambda, alpha, td_error, true_online_error in (
        (0.4, 0.5, 0.302, 0.308), (0.8, 0.27, 0.268, 0.278), (0.9, 0.15, 0.300, 0.308),
    ):  # fmt: skip
        options = {"trace_lambda": trace_lambda, "learning_rate": alpha}
        errors = run("td_lambda", **options)
        yield about(f"TD({trace_lambda}), alpha = {alpha}", errors, td_error, 0.02)
        errors = run("true_online_td_lambda", **options)
        name = f"true online TD({trace_lambda}), alpha = {alpha}"
        yield about(name, errors, true_online_error, 0.02)


LAKE = {
    "gamma": 0.99, "learning_rate": 0.1, "eps_start": 1.0, "eps_end": 0.01,
    "exploration_fraction": 0.8,
}  # fmt: skip


def lake() -> Iterator[Quantity]:
    """FrozenLake of gymnax and of rljax: greedy success within the time limit."""
    num_steps = 500_000
    for env_id, low, source in (
        ("FrozenLake-misc", 0.72, "optimum .74419"), ("rljax/FrozenLake", 0.72, "optimum .74419"),
        ("rljax/FrozenLake8x8", 0.80, "optimum .91322"),
    ):  # fmt: skip
        *_, learner = make("q_learning", env_id, **LAKE | {"total_timesteps": num_steps})

        def run(key, learner=learner):
            return train(learner, key, num_steps)[0]

        states = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 20))
        success = greedy_returns("q_learning", env_id, states, num_episodes=1000, **LAKE)
        yield Quantity(f"{env_id}, {num_steps:,} steps, success", success, low, source=source)
        yield Quantity(f"{env_id}, minimum over runs", success.min())


STUDIES = {
    study.__name__: study
    for study in (treasure, maze, detour, cliff, windy, dyna, changing, sweeping, walk, lake, speed)
}

if __name__ == "__main__":
    sys.exit(main())
