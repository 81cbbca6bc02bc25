"""Watching a trained policy play: a GIF, and text in the terminal where the world is a grid.

A world of `rljax/...` shows its table as well, in the terminal and as a figure.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs import worlds
from rljax.envs.wrappers import with_innermost
from rljax.experiment.plan import Plan, at_least
from rljax.experiment.run import load_states, run_name
from rljax.rendering import frames, tables
from rljax.types import PyTree, params_of, sample_one

FRAME_SECONDS = 0.1  # of the text in a terminal; of a world that writes itself, as its GIF


def watch(
    run_dir: str | Path, *, index: Any = 0, seed: Any = 0, max_steps: Any = 1000,
    output: str | Path | None = None, env: Any = None, show: bool | None = None, **pieces: Any,
) -> Path:  # fmt: skip
    """Plays one episode with a policy of a run, greedily, and writes it as a GIF.

    Args:
      run_dir: the run's folder.
      index: which of its runs; seeds vary fastest.
      seed: of the environment.
      max_steps: at most so many.
      output: the GIF; `watch.gif` in the folder where None. The values of a grid stand beside it,
        in a `.png` of the same name.
      env, pieces: where they are your own, as for `rljax.train`.
      show: text of a grid world in the terminal; None where stdout is one.

    Returns: the path of the GIF.

    Raises:
      ValueError: there is no such run, or it has no checkpoint.
    """
    index, seed = at_least("run", index, 0), at_least("seed", seed, 0)
    max_steps = at_least("max_steps", max_steps, 1)
    plan, states = load_states(run_dir, env, **pieces)
    if index >= plan.num_runs:
        raise ValueError(
            f"`run` is {index}, but {run_dir} has {plan.num_runs} runs: take 0 to "
            f"{plan.num_runs - 1}."
        )
    state = jax.tree.map(lambda x: x[index], states.agent)
    scenes, total, length, ended = _episode(plan, state, index, seed, max_steps)
    path = Path(output) if output else Path(run_dir) / "watch.gif"
    rate = frames.frame_rate(plan.env_id, scenes)
    frames.write_gif(frames.draw_frames(plan.env_id, scenes), path, rate)
    in_terminal = show if show is not None else sys.stdout.isatty()
    if in_terminal:
        _show(plan.env_id, scenes, length, ended)
    how = "ended" if ended else "was not over"
    print(f"{run_name(plan, index)}: return {total:g}, {how} after {length} steps")
    print(path)
    _values(plan, state, path.with_suffix(".png"), in_terminal)
    return path


def replay(plan: Plan, run_dir: str | Path) -> None:
    """After training, on a terminal: an episode, where the world can be written as text."""
    if sys.stdout.isatty() and plan.build_env(1).render is not None:
        watch(run_dir, max_steps=100)


def _episode(
    plan: Plan, state: PyTree, index: int, seed: int, max_steps: int
) -> tuple[list[frames.Scene], float, int, bool]:
    """The scenes of one episode, its return and length, and whether it ended.

    The last scene is the one before the last step, or that which it led to, where it is told.
    """
    env = plan.build_env(1)
    agent = plan.make_agent(_config(plan, index), env)

    def play(state, key):
        reset_key, act_key, env_key = jax.random.split(key, 3)
        env_state, obs = env.reset(reset_key)

        def once(carry, keys):
            env_state, obs, over = carry
            action = agent.greedy(state, obs, keys[0])
            noise = sample_one(env.sample_noise, keys[1])
            next_state, step = env.step(env_state, action, noise)
            done = (step.terminated | step.truncated)[0]
            seen = env_state, obs, step.info.get("reached"), step.next_obs
            return (next_state, step.obs, over | done), (*seen, step.reward[0], over)

        keys = jax.random.split(act_key, max_steps), jax.random.split(env_key, max_steps)
        return jax.lax.scan(once, (env_state, obs, jnp.bool_(False)), keys)

    (_, _, ended), told = jax.jit(play)(state, jax.random.key(seed))
    states, obs, reached, next_obs, reward, over = told
    length = int((~over).sum())
    played = jax.tree.map(lambda x: x[:length], (states, obs))
    scenes = frames.scenes(*played, copy=0, render=env.render)
    if reached is not None:
        last, reached, next_obs = (
            jax.tree.map(lambda x: x[length - 1 : length], tree)
            for tree in (states, reached, next_obs)
        )
        end = with_innermost(last, reached)
        scenes += frames.scenes(end, next_obs, copy=0, render=env.render)
    return scenes, float(reward[:length].sum()), length, bool(ended)


def _config(plan: Plan, index: int) -> Any:
    """The config of one run of a sweep."""
    swept = {name: values[index] for name, values in plan.starts().swept.items()}
    return dataclasses.replace(plan.config, **swept)


def _show(env_id: str, scenes: list[frames.Scene], length: int, ended: bool) -> None:
    """Text frames, each over the one before; then, of a world that writes itself, the steps."""
    if frames.text(env_id, scenes[0]) is None:
        return
    writes_itself = scenes[0].text is not None
    seconds = 1 / frames.frame_rate(env_id, scenes) if writes_itself else FRAME_SECONDS
    for i, scene in enumerate(scenes):
        text = frames.text(env_id, scene) or ""
        back = f"\x1b[{text.count(chr(10)) + 1}A" if i else ""
        print(f"{back}{text}", flush=True)
        time.sleep(seconds)
    if writes_itself and ended:
        print(f"Episode 1: total_steps = {length}")


def _values(plan: Plan, state: PyTree, path: Path, in_terminal: bool) -> None:
    """The table of an agent on its grid, if it has one and the world is one."""
    if not (isinstance(plan.env, str) and plan.env.startswith("rljax/")):
        return
    name = plan.env.removeprefix("rljax/")
    if name not in worlds.WORLDS:
        return
    grid = worlds.world_of(name, **plan.env_params).grid
    table = tables.table_of(jax.tree.map(np.asarray, params_of(state)))
    if table is None or not tables.fits(table, grid):
        return
    if in_terminal:
        print(f"\n{tables.values_text(table, grid)}\n")
    tables.values_figure(table, grid, path, title=f"{plan.agent} {plan.env_id}")
    print(path)
