"""Draws the figures of docs/tabular.md, from runs of the agents and from exact solutions.

    python benchmarks/sutton_barto_figures.py             all figures, some minutes
    python benchmarks/sutton_barto_figures.py cliff       one figure by name

Each is written to docs/figures/NAME.png.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import rljax
from rljax.envs import worlds
from rljax.ops import planning
from rljax.rendering.tables import values_figure
from rljax.results.figures import GREY, PALETTE

DIRECTORY = Path(__file__).parent.parent / "docs" / "figures"


def run_agent(
    agent: str, env_id: str, num_steps: int, num_runs: int, *,
    record: Callable[[Any], Any] = lambda table: (), seed: int = 0,
    sweep: dict[str, list[float]] | None = None, env_params: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Trains an agent in many runs with one step per update, and records every step.

    Args:
      agent, env_id, env_params, options: as in `rljax.train`.
      num_steps: environment steps of each run.
      num_runs: number of runs.
      record: `(table) -> array`, evaluated after each step.
      seed: random seed.
      sweep: one option and its values, which become the first axis of the result.

    Returns:
      `reward`, `done` and `recorded`, `[..., runs, steps]`, and the final `table`, `[..., runs]`.
    """
    row = rljax.AGENTS[agent]
    config = row.config(total_timesteps=num_steps, **options)
    env = rljax.build(env_id, 1, **(env_params or {}))

    def run(key, changes):
        run_config = dataclasses.replace(config, **changes)
        learner = rljax.make_learner(row.make(run_config, env.spec), env, 1)

        def step_once(state, _):
            state, metrics = learner.step(state)
            done = metrics["charts/episodic_length"].weight > 0
            return state, (metrics["charts/reward"], done, record(table(state)))

        def table(state):
            params = state.agent.params
            return params.q if hasattr(params, "q") else params.v

        state, (reward, done, recorded) = jax.lax.scan(
            step_once, learner.init(key), length=num_steps
        )
        return {"reward": reward, "done": done, "recorded": recorded, "table": table(state)}

    keys = jax.random.split(jax.random.key(seed), num_runs)
    changes = {name: jnp.asarray(values) for name, values in (sweep or {}).items()}
    run_all = jax.vmap(run, (0, None))
    run_all = jax.vmap(run_all, (None, 0)) if sweep else run_all
    return jax.device_get(jax.jit(run_all)(keys, changes))


def by_episode(steps: dict[str, np.ndarray], num_episodes: int) -> dict[str, np.ndarray]:
    """Returns length, return and last step of the first episodes, `[runs, num_episodes]`."""
    last = np.stack([np.flatnonzero(done)[:num_episodes] for done in steps["done"]])
    before = np.concatenate([np.full((len(last), 1), -1), last[:, :-1]], axis=1)
    total = np.concatenate([np.zeros((len(last), 1)), steps["reward"].cumsum(axis=1)], axis=1)
    run = np.arange(len(last))[:, None]
    returns = total[run, last + 1] - total[run, before + 1]
    return {"length": last - before, "return": returns, "last": last}


def style_axes(ax: Any, title: str, x: str, y: str) -> None:
    """Sets title and labels, and draws a grid instead of a frame."""
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold")
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.grid(True, color="#E6E6E6", linewidth=0.8)
    ax.set_axisbelow(True)


def draw_level(ax: Any, level: float, text: str, offset: float = 7) -> None:
    """Draws a dotted horizontal line with a label above it, or below if `offset` is negative."""
    ax.axhline(level, color=GREY, linestyle=":", linewidth=1.2)
    ax.annotate(
        text, (1, level), (0, offset), xycoords=("axes fraction", "data"), ha="right", va="bottom",
        textcoords="offset points", fontsize=7.5, color=GREY,
    )  # fmt: skip


def greedy_path(table: np.ndarray, name: str) -> list[int]:
    """Returns the cells that the greedy policy visits in a deterministic environment."""
    model = worlds.model(name)
    state = int(model.start.argmax())
    path = [state]
    for _ in range(60):
        action = table[state].argmax()
        next_state = int(model.transition[state, action].argmax())
        path.append(next_state)
        if model.terminated[state, action, next_state]:
            break
        state = next_state
    return path


def treasure() -> Figure:
    """Q-learning on Treasure: mean action values after some episodes, and episode lengths."""
    num_runs, num_episodes = 1000, 20
    steps = run_agent(
        "q_learning", "rljax/Treasure", 900, num_runs, gamma=0.9, learning_rate=0.1,
        record=lambda q: q,
    )  # fmt: skip
    episodes = by_episode(steps, num_episodes)
    grid, model = worlds.world_of("Treasure").grid, worlds.model("Treasure")
    figure = Figure((9.0, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    for ax, episode in zip(left.subplots(4, 1), (1, 3, 13, None), strict=True):
        if episode is None:
            table, title = planning.value_iteration(model, 0.9).q, "optimal values"
        else:
            last = episodes["last"][:, episode - 1]
            table = steps["recorded"][np.arange(num_runs), last].mean(axis=0)
            title = f"after {episode} episode{'s' * (episode > 1)}"
        values_figure(np.asarray(table), grid, ax=ax, title=title)
    ax = right.subplots()
    mean_length = episodes["length"].mean(axis=0)
    ax.plot(1 + np.arange(num_episodes), mean_length, "o-", color=PALETTE[0], ms=3)
    optimal = planning.policy_iteration(model, 0.9).policy
    policy = planning.epsilon_soft(optimal, 0.1)
    length = float(planning.expected_steps(model, policy)[0])
    draw_level(ax, length, f"{length:.3f}: optimal actions with epsilon = 0.1")
    style_axes(ax, "steps per episode", "episode", f"mean of {num_runs} runs")
    ax.set_ylim(0)
    ax.set_xticks([1, 5, 10, 15, 20])
    return figure


def discount() -> Figure:
    """Optimal values of Maze for three discount factors."""
    figure = Figure((9.0, 3.3), layout="constrained")
    grid, model = worlds.world_of("Maze").grid, worlds.model("Maze")
    for ax, gamma in zip(figure.subplots(1, 3), (0.0, 0.5, 0.9), strict=True):
        q = planning.value_iteration(model, gamma).q
        values_figure(np.asarray(q), grid, ax=ax, title=f"gamma = {gamma:g}")
    return figure


def cliff() -> Figure:
    """Example 6.6: online returns on the cliff, and greedy paths of Q-learning and Sarsa."""
    num_runs, num_episodes = 100, 500
    grid, model = worlds.world_of("CliffWalking").grid, worlds.model("CliffWalking")
    figure = Figure((11.0, 5.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.2, 1))
    labels = {"q_learning": "Q-learning", "sarsa": "Sarsa", "expected_sarsa": "Expected Sarsa"}
    ax = top.subplots()
    panels = iter(bottom.subplots(1, 2))
    for color, (name, label) in zip(PALETTE, labels.items(), strict=False):
        steps = run_agent(
            name, "rljax/CliffWalking", 22_000, num_runs, gamma=1.0, learning_rate=0.5
        )
        returns = by_episode(steps, num_episodes)["return"].mean(axis=0)
        smooth = np.convolve(returns, np.ones(10) / 10, "valid")
        ax.plot(10 + np.arange(len(smooth)), smooth, color=color, label=label)
        print(f"cliff {name}: mean return of the last 100 episodes {returns[-100:].mean():.2f}")
        if name != "expected_sarsa":
            table = steps["table"].mean(axis=0)
            path = greedy_path(table, "CliffWalking")
            title = f"{label}: greedy path of {len(path) - 1} steps"
            values_figure(table, grid, ax=next(panels), title=title, visited=path)
    value = float(model.start @ planning.policy_iteration(model, 1.0, 0.1).value)
    draw_level(ax, value, f"{value:.3f}: optimal epsilon-soft policy, epsilon = 0.1")
    ax.set_ylim(-100, 0)
    style_axes(ax, "return during training", "episode", f"mean of {num_runs} runs")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def trace() -> Figure:
    """Sarsa(lambda) on Treasure: the values after the first episode, by lambda."""
    figure = Figure((7.0, 4.6), layout="constrained")
    grid = worlds.world_of("Treasure", length=9).grid
    for ax, trace_lambda in zip(figure.subplots(4, 1), (0.0, 0.5, 0.9, 1.0), strict=True):
        steps = run_agent(
            "sarsa_lambda", "rljax/Treasure", 2000, 1, env_params={"length": 9}, gamma=0.9,
            learning_rate=0.5, trace_lambda=trace_lambda, record=lambda q: q,
        )  # fmt: skip
        last = int(by_episode(steps, 1)["last"][0, 0])
        title = f"lambda = {trace_lambda:g}: after one episode of {last + 1} steps"
        values_figure(steps["recorded"][0, last], grid, ax=ax, title=title)
    return figure


def n_step() -> Figure:
    """Figure 7.2: n-step TD on the 19-state random walk, by n and step size."""
    num_runs, num_episodes = 100, 10
    true_values = jnp.linspace(-1, 1, 21)[1:20]
    alphas = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    figure = Figure((6.4, 3.8), layout="constrained")
    ax = figure.subplots()
    for color, n in zip(PALETTE, (1, 2, 4, 8, 16, 32), strict=False):
        steps = run_agent(
            "n_step_td", "rljax/RandomWalk", 4000, num_runs, gamma=1.0, n_step=n,
            sweep={"learning_rate": alphas.tolist()},
            record=lambda v: jnp.sqrt(jnp.square(v[1:20] - true_values).mean()),
        )  # fmt: skip
        error = []
        for i in range(len(alphas)):
            last = by_episode({name: x[i] for name, x in steps.items()}, num_episodes)["last"]
            error.append(np.take_along_axis(steps["recorded"][i], last, axis=1).mean())
        alpha = alphas[int(np.argmin(error))]
        print(f"n_step {n}: minimum RMS error {min(error):.4f} at alpha = {alpha:g}")
        ax.plot(alphas, error, "o-", ms=2.5, color=color, label=f"n = {n}")
    ax.set_ylim(0.2, 0.6)
    title = "n-step TD: mean RMS error of the values over the first 10 episodes"
    style_axes(ax, title, "step size alpha", "RMS error")
    ax.legend(frameon=False, fontsize=8, ncols=2)
    return figure


def dyna() -> Figure:
    """Examples 8.1 to 8.3: planning steps in the Dyna maze, and Dyna-Q+ in mazes that change."""
    num_runs = 30
    figure = Figure((11.0, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    for color, n in zip(PALETTE, (0, 5, 50), strict=False):
        steps = run_agent(
            "dyna_q", "rljax/DynaMaze", 9000 if n == 0 else 4000, num_runs, gamma=0.95,
            learning_rate=0.1, planning_steps=n,
        )  # fmt: skip
        length = by_episode(steps, 50)["length"].mean(axis=0)
        print(
            f"dyna, {n} planning steps: episode 2 {length[1]:.1f}, episode 5 {length[4]:.1f}, "
            f"sum of episodes 2 to 50 {length[1:].sum():.0f} steps"
        )
        panels[0].plot(np.arange(2, 51), length[1:], color=color, label=f"{n} planning steps")
    draw_level(panels[0], 14, "14: shortest path", offset=-11)
    panels[0].set(yscale="log", ylim=(10, 1000))
    style_axes(panels[0], "Dyna maze", "episode", f"steps per episode, mean of {num_runs} runs")
    panels[0].legend(frameon=False, fontsize=8)
    settings = (
        ("BlockingMaze", 3000, 1000, 10, "Blocking maze, changes at step 1000"),
        ("ShortcutMaze", 6000, 3000, 50, "Shortcut maze, changes at step 3000"),
    )
    for ax, (name, num_steps, change_at, n, title) in zip(panels[1:], settings, strict=True):
        for color, agent in zip(PALETTE, ("dyna_q", "dyna_q_plus"), strict=False):
            options = {"bonus": 1e-3} if agent == "dyna_q_plus" else {}
            steps = run_agent(
                agent, f"rljax/{name}", num_steps, num_runs, gamma=0.95, learning_rate=0.5,
                planning_steps=n, **options,
            )  # fmt: skip
            reward = steps["reward"].cumsum(axis=1).mean(axis=0)
            print(
                f"dyna, {agent} in {name}: cumulative reward {reward[change_at - 1]:.1f} before "
                f"the change, {reward[-1]:.1f} at the end"
            )
            label = {"dyna_q": "Dyna-Q", "dyna_q_plus": "Dyna-Q+"}[agent]
            ax.plot(reward, color=color, label=label)
        ax.axvline(change_at, color=GREY, linestyle=":", linewidth=1.2)
        style_axes(ax, title, "time step", f"cumulative reward, mean of {num_runs} runs")
        ax.legend(frameon=False, fontsize=8)
    return figure


FIGURES = {figure.__name__: figure for figure in (treasure, discount, cliff, trace, n_step, dyna)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"figures to draw: {', '.join(FIGURES)} (all)"
    )
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - FIGURES.keys()):
        parser.error(f"there is no figure `{unknown[0]}`. Figures are {', '.join(FIGURES)}.")
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name in options.names or FIGURES:
        path = DIRECTORY / f"{name}.png"
        FIGURES[name]().savefig(path, dpi=110)
        print(path)


if __name__ == "__main__":
    main()
