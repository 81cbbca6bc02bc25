"""The study `speed` of sutton_barto.py: compiled runs beside Python loops on the cliff."""

import random
import time
from collections.abc import Iterator

import jax
import numpy as np
from lib.tabular import Quantity, make

from rljax.training.episodes import learn_episodes


def speed() -> Iterator[Quantity]:
    """The cliff: 1,000 runs in one compiled call, beside a Python loop for each run."""
    num_runs, num_episodes = 1000, 500
    for name in ("q_learning", "sarsa"):
        *_, learner = make(name, "rljax/CliffWalking", gamma=1.0, learning_rate=0.5)
        keys = jax.random.split(jax.random.key(0), num_runs)
        start = time.perf_counter()
        run = jax.jit(lambda keys, learner=learner: learn_episodes(learner, keys, num_episodes))
        run = run.lower(keys).compile()
        compile_seconds, seconds = time.perf_counter() - start, []
        for _ in range(3):
            start = time.perf_counter()
            episodes = jax.block_until_ready(run(keys))
            seconds.append(time.perf_counter() - start)
        rljax_seconds = float(np.median(seconds))
        yield Quantity(f"{name}, return of the last 100", episodes.returns[:, -100:].mean(axis=1))
        yield Quantity(f"{name}, seconds to compile", compile_seconds)
        yield Quantity(f"{name}, seconds of 1,000 runs", seconds)
        for kind, loop, generator in (
            ("list", list_loop, random.Random), ("numpy", numpy_loop, np.random.default_rng),
        ):  # fmt: skip
            seconds, returns = [], []
            for seed in range(5):
                start = time.perf_counter()
                returns.append(loop(name, num_episodes, generator(seed))[1])
                seconds.append(time.perf_counter() - start)
            yield Quantity(f"{name}, {kind} loop, return of the last 100", returns)
            yield Quantity(f"{name}, {kind} loop, seconds of one run", seconds)
            ratio = np.median(seconds) * num_runs / rljax_seconds
            low = 100 if kind == "numpy" else -np.inf
            yield Quantity(f"{name}, {kind} loop, time ratio for 1,000 runs", ratio, low)


def list_loop(name: str, num_episodes: int, generator: random.Random) -> tuple[int, float]:
    """Trains Q-learning or Sarsa on the cliff in plain Python, with lists as the table.

    Returns:
      The number of steps, and the mean return of the last 100 episodes.
    """
    q = [[0.0] * 4 for _ in range(48)]
    moves = ((-1, 0), (1, 0), (0, 1), (0, -1))

    def select_action(row):
        if generator.random() < 0.1:
            return generator.randrange(4)
        best = max(row)
        return generator.choice([a for a in range(4) if row[a] == best])

    num_steps, total = 0, 0.0
    for episode in range(num_episodes):
        state, action, done = 36, select_action(q[36]), False
        while not done:
            row, column = divmod(state, 12)
            row = min(max(row + moves[action][0], 0), 3)
            column = min(max(column + moves[action][1], 0), 11)
            next_state, reward = row * 12 + column, -1.0
            if row == 3 and 0 < column < 11:
                next_state, reward = 36, -100.0
            done = next_state == 47
            next_action = select_action(q[next_state]) if name == "sarsa" else -1
            next_q = q[next_state][next_action] if name == "sarsa" else max(q[next_state])
            target = reward + (0.0 if done else next_q)
            q[state][action] += 0.5 * (target - q[state][action])
            state, action = (
                next_state, next_action if next_action >= 0 else select_action(q[next_state])
            )  # fmt: skip
            num_steps, total = num_steps + 1, total + reward * (episode >= num_episodes - 100)
    return num_steps, total / 100


def numpy_loop(name: str, num_episodes: int, generator: np.random.Generator) -> tuple[int, float]:
    """The same as `list_loop` with a numpy array as the table."""
    q = np.zeros((48, 4))
    moves = np.array([(-1, 0), (1, 0), (0, 1), (0, -1)])

    def select_action(row):
        if generator.random() < 0.1:
            return int(generator.integers(4))
        return int(generator.choice(np.flatnonzero(row == row.max())))

    num_steps, total = 0, 0.0
    for episode in range(num_episodes):
        state, done = 36, False
        action = select_action(q[state])
        while not done:
            cell = np.clip(np.array(divmod(state, 12)) + moves[action], 0, (3, 11))
            next_state, reward = int(cell[0] * 12 + cell[1]), -1.0
            if cell[0] == 3 and 0 < cell[1] < 11:
                next_state, reward = 36, -100.0
            done = next_state == 47
            next_action = select_action(q[next_state]) if name == "sarsa" else -1
            next_q = q[next_state, next_action] if name == "sarsa" else q[next_state].max()
            q[state, action] += 0.5 * (reward + next_q * (not done) - q[state, action])
            state, action = (
                next_state, next_action if next_action >= 0 else select_action(q[next_state])
            )  # fmt: skip
            num_steps, total = num_steps + 1, total + reward * (episode >= num_episodes - 100)
    return num_steps, total / 100
