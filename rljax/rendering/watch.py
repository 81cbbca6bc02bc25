"""`rljax watch`: one episode of a trained policy as a GIF, and as text if the environment has one.

Tabular agents in gridworlds also show their value table, in the terminal and as a figure.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import at_least
from rljax.envs import worlds
from rljax.envs.wrappers import replace_innermost
from rljax.experiment.evaluation import load_states
from rljax.experiment.plan import Plan
from rljax.rendering import frames, tables
from rljax.types import PyTree, params_of, sample_one

TEXT_FRAME_SECONDS = 0.1  # of grids drawn from observations; other text plays as fast as the GIF


class Episode(NamedTuple):
    """One episode to show.

    Attributes:
      scenes: a scene before each step, and the final one where the environment reports its state.
      total_reward: undiscounted return.
      length: number of steps.
      ended: it terminated or was truncated by the environment, not by `max_steps`.
    """

    scenes: list[frames.Scene]
    total_reward: float
    length: int
    ended: bool


def watch(
    run_dir: str | Path, *, run: Any = 0, seed: Any = 0, max_steps: Any = 1000,
    output: str | Path | None = None, env: Any = None, show_text: bool | None = None,
    **pieces: Any,
) -> Path:  # fmt: skip
    """Plays one episode with the greedy policy of a run and writes it as a GIF.

    Prints the return and the path of the GIF. For a tabular agent in a gridworld, the value table
    is written next to the GIF, as a `.png` of the same name.

    Args:
      run_dir: run directory of `rljax.train`.
      run: index of the run among settings and seeds; seeds vary fastest.
      seed: random seed of the environment.
      max_steps: largest number of steps to play.
      output: path of the GIF; None writes `watch.gif` into the run directory.
      env: the environment, if it is your own object.
      show_text: print the episode as text; None prints it if stdout is a terminal.
      pieces: the pieces that the run was made with, such as `network=`, and `agent=` if it is
        your own.

    Returns:
      The path of the GIF.

    Raises:
      ValueError: there is no such run or no checkpoint yet, or the environment is on the host.

    Example:
      >>> import rljax, tempfile
      >>> run_dir = tempfile.mkdtemp() + "/run"
      >>> result = rljax.train(
      ...     "value_iteration", "rljax/Treasure", run_dir=run_dir, total_timesteps=320,
      ...     eval_episodes=0, progress=False,
      ... )
      >>> path = watch(run_dir, show_text=False)  # doctest: +ELLIPSIS
      seed 0: return 1, episode ended after 5 steps
      ...
      >>> path.name
      'watch.gif'
    """
    index, seed = at_least("run", run, 0), at_least("seed", seed, 0)
    max_steps = at_least("max_steps", max_steps, 1)
    plan, states = load_states(run_dir, env, **pieces)
    if plan.env.batch is not None:
        raise ValueError(
            f"{plan.env_id} runs on the host, and rljax draws only environments in JAX: use its "
            "own `render`."
        )
    if index >= plan.num_runs:
        raise ValueError(
            f"`run` is {index}, but {run_dir} has {plan.num_runs} runs. Choose one from 0 to "
            f"{plan.num_runs - 1}."
        )
    state = jax.tree.map(lambda x: x[index], states.agent)
    episode = _play(plan, state, index, seed, max_steps)
    path = Path(output) if output else Path(run_dir) / "watch.gif"
    fps = frames.frame_rate(plan.env_id, episode.scenes)
    frames.write_gif(frames.draw_frames(plan.env_id, episode.scenes), path, fps)
    print_text = sys.stdout.isatty() if show_text is None else show_text
    if print_text:
        _print_scenes(plan.env_id, episode)
    outcome = "episode ended" if episode.ended else "episode not finished"
    print(
        f"{plan.run_name(index)}: return {episode.total_reward:g}, {outcome} after "
        f"{episode.length} steps"
    )
    print(path)
    _show_values(plan, state, path.with_suffix(".png"), print_text)
    return path


def watch_after_training(plan: Plan, run_dir: str | Path) -> None:
    """Shows an episode after `rljax train`, on a terminal and for environments with text."""
    if sys.stdout.isatty() and plan.build_env(1).render is not None:
        watch(run_dir, max_steps=100)


def _play(plan: Plan, state: PyTree, index: int, seed: int, max_steps: int) -> Episode:
    """Plays one episode with the greedy policy of the agent's `state`."""
    env = plan.build_env(1)
    agent = plan.make_agent(_config_of(plan, index), env)

    def play(state, key):
        reset_key, act_key, env_key = jax.random.split(key, 3)
        env_state, obs = env.reset(reset_key)

        def play_step(carry, keys):
            env_state, obs, is_over = carry
            action = agent.greedy(state, obs, keys[0])
            noise = sample_one(env.sample_noise, keys[1])
            next_state, step = env.step(env_state, action, noise)
            done = (step.terminated | step.truncated)[0]
            before, after = (env_state, obs), (step.info.get("next_state"), step.next_obs)
            return (next_state, step.obs, is_over | done), (before, after, step.reward[0], is_over)

        keys = jax.random.split(act_key, max_steps), jax.random.split(env_key, max_steps)
        return jax.lax.scan(play_step, (env_state, obs, jnp.bool_(False)), keys)

    (_, _, ended), outputs = jax.jit(play)(state, jax.random.key(seed))
    before, after, reward, is_over = outputs
    length = int((~is_over).sum())
    scenes = frames.scenes(
        *jax.tree.map(lambda x: x[:length], before), copy=0, render=env.render
    )  # fmt: skip
    (states, _), (next_state, next_obs) = jax.tree.map(
        lambda x: x[length - 1 : length], (before, after)
    )
    if next_state is not None:
        final_state = replace_innermost(states, next_state)
        scenes += frames.scenes(final_state, next_obs, copy=0, render=env.render)
    return Episode(scenes, float(reward[:length].sum()), length, bool(ended))


def _config_of(plan: Plan, index: int) -> Any:
    """Returns the config of one run of a sweep."""
    swept = {name: values[index] for name, values in plan.run_inits().swept.items()}
    return dataclasses.replace(plan.config, **swept)


def _print_scenes(env_id: str, episode: Episode) -> None:
    """Prints text frames, each over the previous one."""
    first = episode.scenes[0]
    if frames.text(env_id, first) is None:
        return
    has_text = first.text is not None
    fps = frames.frame_rate(env_id, episode.scenes)
    seconds = 1 / fps if has_text else TEXT_FRAME_SECONDS
    for i, scene in enumerate(episode.scenes):
        text = frames.text(env_id, scene) or ""
        num_lines = text.count("\n") + 1
        replace = f"\x1b[{num_lines}A\x1b[J" if i else ""  # moves the cursor up and erases
        print(f"{replace}{text}", flush=True)
        time.sleep(seconds)
    if has_text and episode.ended:
        print(f"Episode 1: total_steps = {episode.length}")


def _show_values(plan: Plan, state: PyTree, path: Path, print_text: bool) -> None:
    """Writes the value table of an agent as a figure, if it fits the grid of its world."""
    name = plan.env_id.removeprefix("rljax/")
    if plan.custom_env or name == plan.env_id or name not in worlds.WORLDS:
        return
    grid = worlds.world_of(name, **plan.env_params).grid
    table = tables.table_of(jax.tree.map(np.asarray, params_of(state)))
    if table is None or not tables.fits(table, grid):
        return
    if print_text:
        print(f"\n{tables.values_text(table, grid)}\n")
    tables.values_figure(table, grid, path, title=f"{plan.agent} {plan.env_id}")
    print(path)
