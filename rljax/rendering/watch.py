"""`rljax.watch`: one episode of a trained policy as a GIF or video, and as text if there is one.

Tabular agents in gridworlds also show their value table, in the terminal and as a figure.
"""

import importlib
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import at_least, convert
from rljax.envs import SUITES, worlds
from rljax.envs.wrapped import replace_innermost
from rljax.envs.wrappers import batched
from rljax.experiment.evaluation import load_run
from rljax.experiment.evaluator import acting_part
from rljax.experiment.plan import Plan, as_observed
from rljax.ops.precision import in_32_bits
from rljax.ops.random import checked_seed, seed_key
from rljax.rendering import frames, tables, videos
from rljax.rendering.gymnax_tasks import maze_text
from rljax.results.result import Result
from rljax.training import acting
from rljax.types import (
    Env,
    PyTree,
    RecurrentObs,
    Render,
    params_of,
    sample_one,
    unclipped_reward,
)

TEXT_FRAME_SECONDS = 0.1  # of grids drawn from observations; other text plays as fast as the GIF


class Episode(NamedTuple):
    """One episode to show.

    Attributes:
      scenes: the first state and the state after each step, with the action and the reward; of
        the user's own environment, without the last state unless `Step.info["next_state"]` has it.
      total_reward: undiscounted return.
      length: number of steps.
      ended: it terminated or was truncated by the environment, not by `max_steps`.
    """

    scenes: list[frames.Scene]
    total_reward: float
    length: int
    ended: bool


@in_32_bits
def watch(
    source: Result | str | Path, *, run: Any = 0, best: Any = False, seed: Any = 0,
    max_steps: Any = 1000, output: str | Path | None = None, env: Any = None,
    show_text: bool | None = None, **pieces: Any,
) -> Path | list[np.ndarray]:  # fmt: skip
    """Plays one episode with the greedy policy of a run, as a GIF, a video or frames.

    Prints the return and the path of the file. For a tabular agent in a gridworld, the value table
    is written next to it, as a `.png` of the same name.

    Args:
      source: result of `rljax.train` or `rljax.load`, or a run directory.
      run: index of the run among settings and seeds; seeds vary fastest.
      best: the best policy by the evaluation during training (`eval_interval`); False takes the
        final one.
      seed: random seed of the environment.
      max_steps: largest number of steps to play.
      output: path of a .gif, or of an .mp4 with `pip install "rljax-research[video]"`. None writes
        `watch.gif` into the run directory; of a result it writes no file.
      env: the environment, if it is your own object.
      show_text: print the episode as text; None prints it if stdout is a terminal.
      pieces: the pieces that the run was made with, such as `network=`, and `agent=` if it is
        your own; a result knows its own.

    Returns:
      The path of the file; or the frames, uint8 `[H, W, 3]` each, if no file is written.

    Raises:
      ValueError: there is no such run, no checkpoint yet or no best policy, or the suffix of
        `output` is another one.

    Example:
      >>> import rljax
      >>> result = rljax.train(
      ...     "value_iteration", "rljax/Treasure", total_timesteps=320, eval_episodes=0,
      ...     progress=False,
      ... )
      >>> frames = rljax.watch(result, show_text=False)
      seed 0: return 1, episode ended after 5 steps
      >>> len(frames), frames[0].shape
      (6, (96, 432, 3))
    """
    seed, best = checked_seed(seed), convert("best", best, bool)
    max_steps = at_least("max_steps", max_steps, 1)
    if output is not None:
        videos.check_animation(output)
    plan, index, state = load_run(source, run, env, best, **pieces)
    if sys.stderr.isatty():  # compiling takes some seconds
        print(f"{plan.title}: playing one episode", file=sys.stderr)
    episode = _play(plan, state, index, seed, max_steps)
    env_id = plan.env_id if not plan.custom_env else plan.env_id.rpartition("/")[2]
    renderer = frames.renderer_of(env_id, episode.scenes, plan.env_params)
    drawn = frames.draw_frames(env_id, episode.scenes, renderer=renderer)
    print_text = sys.stdout.isatty() if show_text is None else show_text
    if print_text:
        _print_scenes(plan.env_id, episode, renderer.fps)
    outcome = "episode ended" if episode.ended else "episode not finished"
    print(
        f"{plan.run_name(index)}: return {episode.total_reward:g}, {outcome} after "
        f"{episode.length} steps"
    )
    if output is None and isinstance(source, Result):
        return drawn
    path = Path(output) if output else Path(source) / "watch.gif"  # type: ignore[arg-type]
    videos.write_animation(drawn, path, renderer.fps)
    print(path)
    _show_values(plan, state, path.with_suffix(".png"), print_text)
    return path


def watch_after_training(plan: Plan, run_dir: str | Path) -> None:
    """Shows an episode after `rljax train`, on a terminal and for environments with text."""
    if sys.stdout.isatty() and plan.build_env(1).render is not None:
        watch(run_dir, max_steps=100)


def _play(plan: Plan, state: PyTree, index: int, seed: int, max_steps: int) -> Episode:
    """Plays one episode with the greedy policy of the agent's `state`."""
    env, render = _single_episode(plan)
    agent = plan.make_agent(plan.config_of(index), env)
    part = acting_part(plan)

    def play(kept, key):
        state = acting.restore(kept, *part)
        reset_key, act_key, env_key = jax.random.split(key, 3)
        env_state, obs = env.reset(reset_key)

        def play_step(carry, keys):
            env_state, obs, is_over = carry
            action = agent.greedy(state, obs, keys[0])
            noise = sample_one(env.sample_noise, keys[1])
            next_state, step = env.step(env_state, action, noise)
            reached = next_state
            if "next_state" in step.info:
                reached = replace_innermost(next_state, step.info["next_state"])
            done = (step.terminated | step.truncated)[0]
            taken = action[0] if isinstance(obs, RecurrentObs) else action  # without the memory
            # whether `reached` is a state of this episode
            is_known = jnp.bool_(not plan.custom_env or "next_state" in step.info) | ~done
            outputs = reached, step.next_obs, taken, unclipped_reward(step), is_known, is_over
            return (next_state, step.obs, is_over | done), outputs

        keys = jax.random.split(act_key, max_steps), jax.random.split(env_key, max_steps)
        (_, _, ended), outputs = jax.lax.scan(
            play_step, (env_state, obs, jnp.bool_(False)), keys
        )  # fmt: skip
        first = jax.tree.map(lambda x: x[None], (env_state, obs))
        return first, outputs, ended

    first, outputs, ended = jax.jit(play)(acting.keep(state, part.leaves), seed_key(seed))
    *after, action, reward, is_known, is_over = outputs
    length = int((~is_over).sum())
    scenes = frames.scenes(*first, copy=0, render=render)
    shown = length if is_known[length - 1] else length - 1
    if shown:
        after = jax.tree.map(lambda x: x[:shown], after)
        scenes += frames.scenes(*after, copy=0, render=render)
    action, reward = np.asarray(action)[:, 0], np.asarray(reward)[:, 0]
    scenes[1:] = [
        scene._replace(action=action[t], reward=reward[t]) for t, scene in enumerate(scenes[1:])
    ]
    return Episode(scenes, float(reward[:length].sum()), length, bool(ended))


def _single_episode(plan: Plan) -> tuple[Env, Render | None]:
    """Returns the environment as a batch of one, and the function that gives its text.

    An environment that is made from its id does not reset itself, so that the last state of the
    episode is known. The user's own environment does.
    """
    if plan.custom_env:
        return plan.build_env(1), plan.env.render
    suite, name = frames.split_id(plan.env_id)
    params = dict(plan.env_params)
    if "max_episode_steps" in params:
        params["max_episode_steps"] = int(params["max_episode_steps"])
    env = importlib.import_module(SUITES[suite].module).from_id(name, **params)
    env = as_observed(plan.row, plan.config, env)
    render = env.render or (maze_text(name, params) if suite == "gymnax" else None)
    return batched(env, 1), render


def _print_scenes(env_id: str, episode: Episode, fps: float) -> None:
    """Prints text frames, each over the previous one."""
    first = episode.scenes[0]
    if frames.text(env_id, first) is None:
        return
    has_text = first.text is not None
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
