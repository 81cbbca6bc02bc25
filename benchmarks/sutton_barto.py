"""The tabular agents beside published and exact figures of the textbooks' small worlds.

    python benchmarks/tabular.py                       all studies, some minutes
    python benchmarks/tabular.py cliff walk --output results
    python benchmarks/tabular.py speed                 1,000 learners beside a Python loop

Every learner counts: each plays the same number of *episodes*, and no budget of steps cuts off the
slow ones. `+-` is the standard error over learners. The exit code is 1 where a figure falls short.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import harness
import measure
import numpy as np
from harness import Table

sys.path.insert(0, str(harness.REPOSITORY))  # the checkout that this file stands in

import jax
import jax.numpy as jnp

from rljax.agents import AGENTS
from rljax.envs import build, make
from rljax.training.episodes import Episodes, learn_episodes
from rljax.training.evaluate import evaluate
from rljax.training.learner import make_learner, train


class Figure(NamedTuple):
    what: str
    values: Any  # one a learner, or one number
    low: float = -np.inf
    high: float = np.inf
    source: str = ""


def about(what: str, values: Any, expected: float, tolerance: float, source: str = "") -> Figure:
    return Figure(what, values, expected - tolerance, expected + tolerance, source)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for the table")
    options = parser.parse_args()
    if unknown := set(options.studies) - STUDIES.keys():
        parser.error(f"there is no study {', '.join(unknown)}: there are {', '.join(STUDIES)}.")
    table = Table(
        "Tables", "Means over learners that play the same episodes, with their standard errors.",
        "figure", ">measured", ">+-", ">at least", ">at most", "verdict", "by",
    )  # fmt: skip
    failed = 0
    for name in options.studies or STUDIES:
        began = time.perf_counter()
        for figure in STUDIES[name]():
            failed += judge(name, figure, table)
        table.remarks.append(f"{name}: {time.perf_counter() - began:.0f} s, compiling included")
    line = harness.machine(measure.facts())
    if options.output:
        harness.write(options.output / "tabular.md", "Tables", line, [table])
    print(f"\n{line}\n\n{table.text()}")
    return int(bool(failed))


def judge(study: str, figure: Figure, table: Table) -> bool:
    values = np.asarray(figure.values, np.float64).ravel()
    mean, error = values.mean(), values.std() / np.sqrt(len(values))
    bounds = ["" if np.isinf(x) else f"{x:g}" for x in (figure.low, figure.high)]
    judged = bounds != ["", ""]
    passed = figure.low <= mean <= figure.high
    verdict = ("pass" if passed else "FAIL") if judged else ""
    shown = f"{error:.2g}" if len(values) > 1 else ""
    table.add(f"{study}: {figure.what}", f"{mean:.6g}", shown, *bounds, verdict, figure.source)
    return judged and not passed


def learner_of(name: str, env_id: str, env_params: dict[str, Any], options: dict[str, Any]) -> Any:
    row = AGENTS[name]
    env = build(env_id, 1, **env_params)
    agent = row.make(row.config(**{"total_timesteps": 10**7} | options), env.spec)
    return agent, env, make_learner(agent, env, 1)


def play(
    name: str, env_id: str, learners: int, episodes: int, *, env_params: Any = None,
    watch: Callable[[Any], Any] = lambda state: (), **options: Any,
) -> Episodes:  # fmt: skip
    """The first episodes of many learners, in one compiled call."""
    learner = learner_of(name, env_id, env_params or {}, options)[-1]
    keys = jax.random.split(jax.random.key(0), learners)
    played = jax.jit(lambda keys: learn_episodes(learner, keys, episodes, watch=watch))(keys)
    assert (played.finished >= episodes).all()
    return played


def greedy_returns(
    name: str, env_id: str, state: Any, *, episodes: int = 1, max_steps: int | None = None,
    env_params: Any = None, **options: Any,
) -> np.ndarray:  # fmt: skip
    """Of the last table of each learner: the mean return of fresh greedy episodes, `[R]`."""
    agent = learner_of(name, env_id, env_params or {}, options)[0]
    env = build(env_id, 1, **(env_params or {}))
    keys = jax.random.split(jax.random.key(1), jax.tree.leaves(state.num_updates)[0].shape[0])

    def one(state, key):
        return evaluate(agent, env, state, key, episodes, max_steps).returns.mean()

    return np.asarray(jax.jit(jax.vmap(one))(state.agent, keys))


def treasure() -> Iterator[Figure]:
    """The notes' first script. Its rule, at random where a row is all zero, is ours at a tie."""
    played = play(
        "q_learning", "rljax/Treasure", 1000, 13, gamma=0.9, learning_rate=0.1,
        watch=lambda state: state.agent.params.q[4, 1],
    )  # fmt: skip
    exact = 1 - 0.9**13
    yield about("Q(4, right), least", played.seen[:, -1].min(), exact, 1e-6, "1 - .9^13, exact")
    yield about("Q(4, right), greatest", played.seen[:, -1].max(), exact, 1e-6, "the same")
    yield Figure("steps of episodes 6 to 13", played.lengths[:, 5:].mean(axis=1), 5.4, 5.6)
    for i, expected in enumerate((29.7, 21.3, 14.2, 9.3, 6.4)):
        tolerance = max(0.15, 0.06 * expected)
        yield about(f"steps of episode {i + 1}", played.lengths[:, i], expected, tolerance)


def maze() -> Iterator[Figure]:
    """The notes' scripts 2, 3, 4 and 11; episodes are cut after 2000 steps."""
    limit = {"env_params": {"max_episode_steps": 2000}}
    script = {"gamma": 0.9, "learning_rate": 0.01} | limit

    def run(name, episodes, learners=200, **options):
        played = play(name, "rljax/Maze", learners, episodes, **options)
        wins = np.asarray(played.returns) > 0
        greedy = greedy_returns(name, "rljax/Maze", played.state, max_steps=20, **options)
        return wins, np.asarray(played.lengths), greedy > 0

    wins, _, greedy = run("q_learning", 100, **script)
    first = wins[:, :10].mean(axis=1)
    yield about("Q-learning, wins in the first 10", first, 0.28, 0.04)
    yield about("Q-learning, wins in the last 10", wins[:, -10:].mean(axis=1), 0.945, 0.02)
    yield Figure("Q-learning, greedily to paradise in 20", greedy, 1.0)
    wins, lengths, _ = run("q_learning", 300, **script | {"learning_rate": 0.1})
    yield about("Q-learning at .1, wins in the last 10", wins[:, -10:].mean(axis=1), 0.95, 0.02)
    yield about("Q-learning at .1, their steps", lengths[:, -10:].mean(axis=1), 6.5, 0.3)
    wins, _, greedy = run("dyna_q", 40, **script | {"planning_steps": 10, "sampling": "states"})
    source = "a plain Python loop, 400 learners: .461"
    yield about("Dyna-Q, wins in the first 10", wins[:, :10].mean(axis=1), 0.47, 0.05, source)
    yield about("Dyna-Q, wins in the last 10", wins[:, -10:].mean(axis=1), 0.945, 0.02)
    yield Figure("Dyna-Q, greedily to paradise", greedy, 1.0)
    # at this step size Sarsa hides from the pits
    wins, lengths, greedy = run("sarsa", 100, **script)
    yield about("Sarsa, wins in the last 10", wins[:, -10:].mean(axis=1), 0.888, 0.06)
    yield about("Sarsa, their steps", lengths[:, -10:].mean(axis=1), 391, 120)
    yield Figure("Sarsa, greedily to paradise in 20", greedy, high=0.9)
    wins, lengths, greedy = run(
        "sarsa_lambda", 100, **script | {"trace_lambda": 0.9, "trace": "clearing"}
    )
    yield about("Sarsa(.9), wins in the last 10", wins[:, -10:].mean(axis=1), 0.903, 0.04)
    yield about("Sarsa(.9), their steps", lengths[:, -10:].mean(axis=1), 92, 60)
    yield about("Sarsa(.9), greedily to paradise", greedy, 0.95, 0.06)


def detour() -> Iterator[Figure]:
    """One pit: the first step down and the first one right are equal, but for who may slip."""
    options = {
        "gamma": 0.9, "learning_rate": 0.003, "eps_start": 1.0, "exploration_fraction": 0.3,
        "total_timesteps": 200_000, "env_params": {"features": False},
    }  # fmt: skip
    for name in ("sarsa", "q_learning"):
        q = play(name, "rljax/MazeDQN", 100, 40_000, **options).state.agent.params.q[:, 0]
        low = 0.95 if name == "sarsa" else -np.inf
        yield Figure(f"{name} prefers down to right", q[:, 1] > q[:, 2], low)
        down, right = (".70099 soft", ".66155") if name == "sarsa" else (".729, exact", ".729")
        yield Figure(f"{name} Q(start, down)", q[:, 1], source=down)
        yield Figure(f"{name} Q(start, right)", q[:, 2], source=right)


CLIFF = {"gamma": 1.0, "learning_rate": 0.5}


def cliff() -> Iterator[Figure]:
    """Example 6.6: the mean return of the last 100 of 500 episodes."""
    for name, expected, tolerance in (
        ("q_learning", -49.3, 2), ("sarsa", -27.0, 2), ("expected_sarsa", -20.95, 0.7),
    ):  # fmt: skip
        played = play(name, "rljax/CliffWalking", 300, 500, **CLIFF)
        yield about(name, played.returns[:, -100:].mean(axis=1), expected, tolerance)
        last = greedy_returns(name, "rljax/CliffWalking", played.state, max_steps=200, **CLIFF)
        yield Figure(f"{name}, greedily", last)


def windy() -> Iterator[Figure]:
    """Example 6.5."""
    played = play("sarsa", "rljax/WindyGridworld", 300, 500, gamma=1.0, learning_rate=0.5)
    within = (np.cumsum(played.lengths, axis=1) <= 8000).sum(axis=1)
    yield about("episodes in 8000 steps", within, 160, 8)
    yield about("steps of the last 100 of 500", played.lengths[:, -100:].mean(axis=1), 20.4, 0.6)


def dyna() -> Iterator[Figure]:
    """Example 8.1: how many steps episodes 2 to 50 take together."""
    for n, expected, second in ((0, 4233, 723), (5, 1026, 154), (50, 843, 41)):
        played = play(
            "dyna_q", "rljax/DynaMaze", 60, 50, planning_steps=n, gamma=0.95, learning_rate=0.1
        )
        total = played.lengths[:, 1:].sum(axis=1)
        yield about(f"n = {n}, steps of episodes 2 to 50", total, expected, 0.15 * expected)
        yield about(f"n = {n}, of episode 2", played.lengths[:, 1], second, 0.25 * second)


def changing() -> Iterator[Figure]:
    """Examples 8.2 and 8.3: reward gathered after the maze has changed."""
    options = {"gamma": 0.95, "learning_rate": 1.0}
    for world, steps, change, n, bonus in (
        ("BlockingMaze", 3000, 1000, 10, 1e-4), ("ShortcutMaze", 6000, 3000, 50, 1e-3),
    ):  # fmt: skip
        gathered = {}
        for name, more in (("dyna_q", {}), ("dyna_q_plus", {"bonus": bonus})):
            learner = learner_of(name, f"rljax/{world}", {}, options | {"planning_steps": n} | more)
            run = jax.vmap(
                lambda key, learner=learner[-1]: train(learner, key, steps, steps // 100)[1]
            )
            keys = jax.random.split(jax.random.key(0), 30)
            reward = 100 * np.asarray(jax.jit(run)(keys)["charts/reward"])
            gathered[name] = reward[:, change // 100 :].sum(axis=1)
            yield Figure(f"{world}, {name} after the change", gathered[name])
        more = gathered["dyna_q_plus"] - gathered["dyna_q"].mean()
        yield Figure(f"{world}, what Dyna-Q+ gathers more", more, 1.0)


def sweeping() -> Iterator[Figure]:
    """Section 8.4: corrections until the greedy policy needs 16 steps, two more than the best."""
    model = make("rljax/DynaMaze").spec.model
    next_state = jnp.asarray(model.transition.argmax(axis=-1), jnp.int32)
    start, goal = int(model.start.argmax()), 8

    def shortest(q):
        def go(state, _):
            return jnp.where(state == goal, state, next_state[state, q[state].argmax()]), None

        return jax.lax.scan(go, jnp.int32(start), length=16)[0] == goal

    needed = {}
    for name, count in (
        ("dyna_q", lambda state: state.agent.model[1].clock * 6),
        ("prioritized_sweeping", lambda state: state.agent.model[1].num_backups),
    ):
        played = play(
            name, "rljax/DynaMaze", 50, 200, planning_steps=5, gamma=0.95, learning_rate=0.5,
            watch=lambda state, count=count: (shortest(state.agent.params.q), count(state)),
        )  # fmt: skip
        found, backups = map(np.asarray, played.seen)
        first = found.argmax(axis=1)
        needed[name] = backups[np.arange(len(first)), first]
        yield Figure(f"{name}, found it", found.any(axis=1), 0.95)
        yield Figure(f"{name}, corrections", needed[name])
    ratio = np.median(needed["dyna_q"]) / np.median(needed["prioritized_sweeping"])
    yield Figure("Dyna-Q's over prioritized sweeping's, medians", ratio, 1.5)


TRUTH = np.arange(-9, 10) / 10


def walk() -> Iterator[Figure]:
    """The random walk of 19 states: the root-mean-square error, over the first 10 episodes."""

    def rms(state):
        return jnp.sqrt(jnp.square(state.agent.params.v[1:-1] - jnp.asarray(TRUTH)).mean())

    def run(name, learners=2000, **options):
        played = play(name, "rljax/RandomWalk", learners, 10, gamma=1.0, watch=rms, **options)
        return played.seen.mean(axis=1)

    env = build("rljax/RandomWalk", 1)
    agent = AGENTS["td"].make(AGENTS["td"].config(), env.spec)
    begin = float(rms(make_learner(agent, env, 1).init(jax.random.key(0))))
    yield about("of zeros", begin, 0.5477226, 1e-6, "exact")
    means = {}
    for n, rate, expected in (
        (1, 0.8, 0.3444), (2, 0.6, 0.2749), (4, 0.4, 0.2619), (8, 0.2, 0.2752), (16, 0.1, 0.3177),
    ):  # fmt: skip
        errors = run("n_step_td", n_step=n, learning_rate=rate)
        means[n] = errors.mean()
        yield about(f"n = {n} at {rate}", errors, expected, 0.012)
    yield about("n of the least", min(means, key=means.__getitem__), 4, 0)
    for trace_lambda, rate, expected in (
        (0.0, 0.8, 0.3651), (0.4, 0.7, 0.2890), (0.8, 0.4, 0.2595), (0.9, 0.2, 0.2836),
    ):  # fmt: skip
        errors = run("lambda_return", trace_lambda=trace_lambda, learning_rate=rate)
        yield about(f"lambda returns of {trace_lambda} at {rate}", errors, expected, 0.012)
    for trace_lambda, rate, plain, online in (
        (0.4, 0.5, 0.302, 0.308), (0.8, 0.27, 0.268, 0.278), (0.9, 0.15, 0.300, 0.308),
    ):  # fmt: skip
        options = {"trace_lambda": trace_lambda, "learning_rate": rate}
        errors = run("td_lambda", **options)
        yield about(f"TD({trace_lambda}) at {rate}", errors, plain, 0.02)
        errors = run("true_online_td_lambda", **options)
        yield about(f"true online TD({trace_lambda}) at {rate}", errors, online, 0.02)


LAKE = {
    "gamma": 0.99, "learning_rate": 0.1, "eps_start": 1.0, "eps_end": 0.01,
    "exploration_fraction": 0.8,
}  # fmt: skip


def lake() -> Iterator[Figure]:
    """FrozenLake through gymnax: what the last table does greedily, within the time limit."""
    for env_id, steps, options, low, best in (
        ("FrozenLake-misc", 500_000, LAKE, 0.72, "at best .74419"),
        ("rljax/FrozenLake", 500_000, LAKE, 0.72, "at best .74419"),
        ("rljax/FrozenLake8x8", 500_000, LAKE, 0.80, "at best .91322"),
    ):  # fmt: skip
        learner = learner_of("q_learning", env_id, {}, options | {"total_timesteps": steps})[-1]
        keys = jax.random.split(jax.random.key(0), 20)
        run = jax.jit(
            jax.vmap(lambda key, learner=learner, steps=steps: train(learner, key, steps)[0])
        )
        scores = greedy_returns("q_learning", env_id, run(keys), episodes=1000, **options)
        yield Figure(f"{env_id}, {steps:,} steps", scores, low, source=best)
        yield Figure(f"{env_id}, its worst learner", scores.min())


def python_cliff(name: str, episodes: int, generator: random.Random) -> tuple[int, float]:
    """One learner of the cliff, in Python as it is usually written, with lists for tables."""
    q = [[0.0] * 4 for _ in range(48)]
    moves = ((-1, 0), (1, 0), (0, 1), (0, -1))

    def choose(row):
        if generator.random() < 0.1:
            return generator.randrange(4)
        best = max(row)
        return generator.choice([a for a in range(4) if row[a] == best])

    steps, late = 0, 0.0
    for episode in range(episodes):
        state, action, done = 36, choose(q[36]), False
        while not done:
            row, column = divmod(state, 12)
            row = min(max(row + moves[action][0], 0), 3)
            column = min(max(column + moves[action][1], 0), 11)
            following, reward = row * 12 + column, -1.0
            if row == 3 and 0 < column < 11:
                following, reward = 36, -100.0
            done = following == 47
            next_action = choose(q[following]) if name == "sarsa" else -1
            beyond = q[following][next_action] if name == "sarsa" else max(q[following])
            target = reward + (0.0 if done else beyond)
            q[state][action] += 0.5 * (target - q[state][action])
            state, action = following, next_action if next_action >= 0 else choose(q[following])
            steps, late = steps + 1, late + reward * (episode >= episodes - 100)
    return steps, late / 100


def numpy_cliff(name: str, episodes: int, generator: np.random.Generator) -> tuple[int, float]:
    """The same with a numpy table, as tutorials have it."""
    q = np.zeros((48, 4))
    moves = np.array([(-1, 0), (1, 0), (0, 1), (0, -1)])

    def choose(row):
        if generator.random() < 0.1:
            return int(generator.integers(4))
        return int(generator.choice(np.flatnonzero(row == row.max())))

    steps, late = 0, 0.0
    for episode in range(episodes):
        state, done = 36, False
        action = choose(q[state])
        while not done:
            place = np.clip(np.array(divmod(state, 12)) + moves[action], 0, (3, 11))
            following, reward = int(place[0] * 12 + place[1]), -1.0
            if place[0] == 3 and 0 < place[1] < 11:
                following, reward = 36, -100.0
            done = following == 47
            next_action = choose(q[following]) if name == "sarsa" else -1
            beyond = q[following, next_action] if name == "sarsa" else q[following].max()
            q[state, action] += 0.5 * (reward + beyond * (not done) - q[state, action])
            state, action = following, next_action if next_action >= 0 else choose(q[following])
            steps, late = steps + 1, late + reward * (episode >= episodes - 100)
    return steps, late / 100


def speed() -> Iterator[Figure]:
    """The cliff: 1,000 learners in one call, beside 1,000 times a loop of one learner."""
    learners, episodes = 1000, 500
    for name in ("q_learning", "sarsa"):
        learner = learner_of(name, "rljax/CliffWalking", {}, CLIFF)[-1]
        keys = jax.random.split(jax.random.key(0), learners)
        began = time.perf_counter()
        run = jax.jit(lambda keys, learner=learner: learn_episodes(learner, keys, episodes))
        run = run.lower(keys).compile()
        compiling, times = time.perf_counter() - began, []
        for _ in range(3):
            began = time.perf_counter()
            played = jax.block_until_ready(run(keys))
            times.append(time.perf_counter() - began)
        ours = float(np.median(times))
        yield Figure(f"{name}, return of the last 100", played.returns[:, -100:].mean(axis=1))
        yield Figure(f"{name}, seconds to compile", compiling)
        yield Figure(f"{name}, seconds of 1,000 learners", times)
        for kind, loop, generator in (
            ("lists", python_cliff, random.Random), ("numpy", numpy_cliff, np.random.default_rng),
        ):  # fmt: skip
            seconds, late = [], []
            for seed in range(5):
                began = time.perf_counter()
                late.append(loop(name, episodes, generator(seed))[1])
                seconds.append(time.perf_counter() - began)
            yield Figure(f"{name}, a loop over {kind}: return of the last 100", late)
            yield Figure(f"{name}, a loop over {kind}: seconds of one learner", seconds)
            ratio = np.median(seconds) * learners / ours
            low = 100 if kind == "numpy" else -np.inf
            yield Figure(f"{name}, a loop over {kind}: times as long, by 1,000", ratio, low)


STUDIES = {
    study.__name__: study
    for study in (treasure, maze, detour, cliff, windy, dyna, changing, sweeping, walk, lake, speed)
}

if __name__ == "__main__":
    sys.exit(main())
