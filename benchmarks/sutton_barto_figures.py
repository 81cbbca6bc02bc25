"""The figures of docs/tabular.md: `python benchmarks/tabular_figures.py [name ...]`.

Each is drawn from runs of the project's own agents, or from the exact solution of a world.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import rljax
from rljax.agents import AGENTS
from rljax.envs import values, worlds
from rljax.ops import planning
from rljax.results.figures import GREY, PALETTE

FOLDER = Path(__file__).parent.parent / "docs" / "figures"


def play(
    agent: str, env_id: str, num_steps: int, runs: int, *,
    watch: Callable[[Any], Any] = lambda q: (), seed: int = 0,
    sweep: dict[str, list[float]] | None = None, env_params: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Runs of an agent, step by step: rewards and ends `[..., runs, steps]`, the last table.

    `sweep`: one option and its values, an axis in front. `watch`: of the table after each step.
    """
    row = AGENTS[agent]
    config = row.config(total_timesteps=num_steps, **options)
    env = rljax.build(env_id, 1, **(env_params or {}))

    def one(key, change):
        chosen = dataclasses.replace(config, **change)
        learner = rljax.make_learner(row.make(chosen, env.spec), env, 1)

        def once(state, _):
            state, metrics = learner.step(state)
            length = metrics["charts/episodic_length"]
            told = metrics["charts/reward"], length.weight > 0, watch(table(state))
            return state, told

        def table(state):
            params = state.agent.params
            return params.q if hasattr(params, "q") else params.v

        state, told = jax.lax.scan(once, learner.init(key), length=num_steps)
        return *told, table(state)

    keys = jax.random.split(jax.random.key(seed), runs)
    change = {name: jnp.asarray(numbers) for name, numbers in (sweep or {}).items()}
    over = jax.vmap(one, (0, None))
    over = jax.vmap(over, (None, 0)) if sweep else over
    told = jax.device_get(jax.jit(over)(keys, change))
    return dict(zip(("reward", "ended", "watched", "table"), told, strict=True))


def by_episode(played: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Lengths, returns and last steps `[runs, count]` of the first episodes of each run."""
    last = np.stack([np.flatnonzero(ended)[:count] for ended in played["ended"]])
    before = np.concatenate([np.full((len(last), 1), -1), last[:, :-1]], axis=1)
    total = np.concatenate([np.zeros((len(last), 1)), played["reward"].cumsum(axis=1)], axis=1)
    rows = np.arange(len(last))[:, None]
    gained = total[rows, last + 1] - total[rows, before + 1]
    return {"length": last - before, "return": gained, "last": last}


def axes(columns: int, size: tuple[float, float], rows: int = 1) -> tuple[Figure, Any]:
    figure = Figure(size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def plain(ax: Any, title: str, x: str, y: str) -> None:
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold")
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.grid(True, color="#E6E6E6", linewidth=0.8)
    ax.set_axisbelow(True)


def line_at(ax: Any, level: float, text: str, above: float = 7, color: str = GREY) -> None:
    ax.axhline(level, color=color, linestyle=":", linewidth=1.2)
    ax.annotate(
        text, (1, level), (0, above), xycoords=("axes fraction", "data"), ha="right", va="bottom",
        textcoords="offset points", fontsize=7.5, color=color,
    )  # fmt: skip


def greedy_path(table: np.ndarray, name: str) -> list[int]:
    """The cells that the greedy policy goes through, in a world without chance."""
    model, cell = worlds.model(name), int(worlds.model(name).start.argmax())
    path = [cell]
    for _ in range(60):
        action = table[cell].argmax()
        there = int(model.transition[cell, action].argmax())
        path.append(there)
        if model.terminated[cell, action, there]:
            break
        cell = there
    return path


def treasure() -> Figure:
    """How the value creeps backwards from the treasure, an episode a cell."""
    runs, episodes = 1000, 20
    played = play(
        "q_learning", "rljax/Treasure", 900, runs, gamma=0.9, learning_rate=0.1, watch=lambda q: q
    )
    cut = by_episode(played, episodes)
    grid, model = worlds.world_of("Treasure").grid, worlds.model("Treasure")
    figure = Figure((9.0, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    for ax, episode in zip(left.subplots(4, 1), (1, 3, 13, None), strict=True):
        if episode is None:
            table, title = planning.value_iteration(model, 0.9).q, "exact"
        else:
            last = cut["last"][:, episode - 1]
            table = played["watched"][np.arange(runs), last].mean(axis=0)
            title = f"after {episode} episode{'s' * (episode > 1)}"
        values.values_figure(np.asarray(table), grid, ax=ax, title=title)
    ax = right.subplots()
    ax.plot(1 + np.arange(episodes), cut["length"].mean(axis=0), "o-", color=PALETTE[0], ms=3)
    best = planning.policy_iteration(model, 0.9).policy
    steps = float(planning.expected_steps(model, planning.soft(best, 0.1))[0])
    line_at(ax, steps, f"{steps:.3f}: the best, with one action in ten at random")
    plain(ax, "steps to the treasure", "episode", f"mean of {runs} runs")
    ax.set_ylim(0)
    ax.set_xticks([1, 5, 10, 15, 20])
    return figure


def glasses() -> Figure:
    """What gamma lets the explorer see."""
    figure, (row,) = axes(3, (9.0, 3.3))
    for ax, gamma in zip(row, (0.0, 0.5, 0.9), strict=True):
        q = planning.value_iteration(worlds.model("Maze"), gamma).q
        title = f"gamma = {gamma:g}"
        values.values_figure(np.asarray(q), worlds.world_of("Maze").grid, ax=ax, title=title)
    return figure


def cliff() -> Figure:
    """Why Sarsa is cautious."""
    runs, episodes = 100, 500
    options = {"gamma": 1.0, "learning_rate": 0.5}
    grid, model = worlds.world_of("CliffWalking").grid, worlds.model("CliffWalking")
    figure = Figure((11.0, 5.2), layout="constrained")
    top, below = figure.subfigures(2, 1, height_ratios=(1.2, 1))
    names = {"q_learning": "Q-learning", "sarsa": "Sarsa", "expected_sarsa": "Expected Sarsa"}
    ax = top.subplots()
    panels = iter(below.subplots(1, 2))
    for color, (name, label) in zip(PALETTE, names.items(), strict=False):
        played = play(name, "rljax/CliffWalking", 22_000, runs, **options)
        returns = by_episode(played, episodes)["return"].mean(axis=0)
        smooth = np.convolve(returns, np.ones(10) / 10, "valid")
        ax.plot(10 + np.arange(len(smooth)), smooth, color=color, label=label)
        print(f"cliff {name}: mean return of the last 100 episodes {returns[-100:].mean():.2f}")
        if name != "expected_sarsa":
            table = played["table"].mean(axis=0)
            path = greedy_path(table, "CliffWalking")
            title = f"{label}: its greedy path has {len(path) - 1} steps"
            values.values_figure(table, grid, ax=next(panels), title=title, path_of=path)
    best = float(model.start @ planning.policy_iteration(model, 1.0, 0.1).value)
    line_at(ax, best, f"{best:.3f}: the best that is random one time in ten")
    ax.set_ylim(-100, 0)
    plain(ax, "return of an episode while learning", "episode", f"mean of {runs} runs")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def trace() -> Figure:
    """What the first treasure teaches, by lambda."""
    figure, panels = axes(1, (7.0, 4.6), rows=4)
    grid = worlds.world_of("Treasure", length=9).grid
    for ax, decay in zip(panels.flat, (0.0, 0.5, 0.9, 1.0), strict=True):
        played = play(
            "sarsa_lambda", "rljax/Treasure", 2000, 1, env_params={"length": 9}, gamma=0.9,
            learning_rate=0.5, trace_lambda=decay, watch=lambda q: q,
        )  # fmt: skip
        last = int(by_episode(played, 1)["last"][0, 0])
        title = f"lambda = {decay:g}: after one episode, of {last + 1} steps"
        values.values_figure(played["watched"][0, last], grid, ax=ax, title=title)
    return figure


def n_step() -> Figure:
    """How many rewards of a return are best."""
    runs, episodes = 100, 10
    truth = jnp.linspace(-1, 1, 21)[1:20]
    rates = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    figure, ((ax,),) = axes(1, (6.4, 3.8))
    for color, n in zip(PALETTE, (1, 2, 4, 8, 16, 32), strict=False):
        played = play(
            "n_step_td", "rljax/RandomWalk", 4000, runs, gamma=1.0, n_step=n,
            sweep={"learning_rate": rates.tolist()},
            watch=lambda v: jnp.sqrt(jnp.square(v[1:20] - truth).mean()),
        )  # fmt: skip
        error = []
        for i in range(len(rates)):
            last = by_episode({k: x[i] for k, x in played.items()}, episodes)["last"]
            error.append(np.take_along_axis(played["watched"][i], last, axis=1).mean())
        print(f"n_step {n}: least error {min(error):.4f} at {rates[int(np.argmin(error))]:g}")
        ax.plot(rates, error, "o-", ms=2.5, color=color, label=f"n = {n}")
    ax.set_ylim(0.2, 0.6)
    plain(
        ax, "error of the values, over the first 10 episodes", "learning rate", "root mean square"
    )
    ax.legend(frameon=False, fontsize=8, ncols=2)
    return figure


def dyna() -> Figure:
    """What a model is good for, and what one that has become wrong is not."""
    figure, (row,) = axes(3, (11.0, 3.6))
    for color, n in zip(PALETTE, (0, 5, 50), strict=False):
        runs = 30
        played = play(
            "dyna_q", "rljax/DynaMaze", 9000 if n == 0 else 4000, runs, gamma=0.95,
            learning_rate=0.1, planning_steps=n,
        )  # fmt: skip
        length = by_episode(played, 50)["length"].mean(axis=0)
        print(
            f"dyna {n}: episodes 2, 5: {length[1]:.1f}, {length[4]:.1f}; "
            f"2 to 50: {length[1:].sum():.0f}"
        )
        row[0].plot(np.arange(2, 51), length[1:], color=color, label=f"{n} planning steps")
    line_at(row[0], 14, "14: the shortest way", above=-11)
    row[0].set(yscale="log", ylim=(10, 1000))
    plain(row[0], "the Dyna maze", "episode", "steps, mean of 30 runs")
    row[0].legend(frameon=False, fontsize=8)
    settings = (
        ("BlockingMaze", 3000, 1000, 10, 1e-3, "the way closes after 1000 steps"),
        ("ShortcutMaze", 6000, 3000, 50, 1e-3, "a shorter way opens after 3000"),
    )
    for ax, (name, steps, change, n, bonus, title) in zip(row[1:], settings, strict=True):
        for color, agent in zip(PALETTE, ("dyna_q", "dyna_q_plus"), strict=False):
            options = {"bonus": bonus} if agent == "dyna_q_plus" else {}
            played = play(
                agent, f"rljax/{name}", steps, 30, gamma=0.95, learning_rate=0.5,
                planning_steps=n, **options,
            )  # fmt: skip
            gained = played["reward"].cumsum(axis=1).mean(axis=0)
            print(f"dyna {name} {agent}: {gained[change - 1]:.1f} before, {gained[-1]:.1f} in all")
            label = {"dyna_q": "Dyna-Q", "dyna_q_plus": "Dyna-Q+"}[agent]
            ax.plot(gained, color=color, label=label)
        ax.axvline(change, color=GREY, linestyle=":", linewidth=1.2)
        plain(ax, title, "step", "rewards so far, mean of 30 runs")
        ax.legend(frameon=False, fontsize=8)
    return figure


FIGURES = {
    "treasure": treasure, "glasses": glasses, "cliff": cliff, "trace": trace, "n_step": n_step,
    "dyna": dyna,
}  # fmt: skip


def main(names: list[str]) -> None:
    if unknown := set(names) - set(FIGURES):
        sys.exit(f"there is no figure {min(unknown)}: there are {', '.join(FIGURES)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or FIGURES:
        path = FOLDER / f"{name}.png"
        FIGURES[name]().savefig(path, dpi=110)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
