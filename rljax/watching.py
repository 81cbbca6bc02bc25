"""Watching a trained policy play: a GIF, and text in the terminal where the world is a grid."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rljax.envs import drawing
from rljax.experiment import load_states, run_name
from rljax.plan import Plan, at_least
from rljax.types import PyTree

FRAME_SECONDS = 0.1  # of the text in a terminal


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
      output: the GIF; `watch.gif` in the folder where None.
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
    scenes, total, ended = _episode(plan, state, index, seed, max_steps)
    path = Path(output) if output else Path(run_dir) / "watch.gif"
    drawing.write_gif(drawing.frames(plan.env_id, scenes), path, drawing.frame_rate(plan.env_id))
    if show if show is not None else sys.stdout.isatty():
        _show(plan.env_id, scenes)
    how = "ended" if ended else "was not over"
    print(f"{run_name(plan, index)}: return {total:g}, {how} after {len(scenes)} steps")
    print(path)
    return path


def _episode(
    plan: Plan, state: PyTree, index: int, seed: int, max_steps: int
) -> tuple[list[drawing.Scene], float, bool]:
    """The scenes of one episode, its return, and whether it ended."""
    env = plan.build_env(1)
    agent = plan.make_agent(_config(plan, index), env)

    def play(state, key):
        reset_key, act_key, env_key = jax.random.split(key, 3)
        env_state, obs = env.reset(reset_key)

        def once(carry, keys):
            env_state, obs, over = carry
            action = agent.greedy(state, obs, keys[0])
            next_state, step = env.step(env_state, action, keys[1])
            done = (step.terminated | step.truncated)[0]
            return (next_state, step.obs, over | done), (env_state, obs, step.reward[0], over)

        keys = jax.random.split(act_key, max_steps), jax.random.split(env_key, max_steps)
        return jax.lax.scan(once, (env_state, obs, jnp.bool_(False)), keys)

    (_, _, ended), (states, obs, reward, over) = jax.jit(play)(state, jax.random.key(seed))
    length = int((~over).sum())
    played = jax.tree.map(lambda x: x[:length], (states, obs))
    return drawing.scenes(*played, copy=0), float(reward[:length].sum()), bool(ended)


def _config(plan: Plan, index: int) -> Any:
    """The config of one run of a sweep."""
    swept = {name: values[index] for name, values in plan.starts().swept.items()}
    return dataclasses.replace(plan.config, **swept)


def _show(env_id: str, scenes: list[drawing.Scene]) -> None:
    """Text frames, each over the one before."""
    first = drawing.text(env_id, scenes[0])
    if first is None:
        return
    for i, scene in enumerate(scenes):
        text = drawing.text(env_id, scene) or ""
        back = f"\x1b[{text.count(chr(10)) + 1}A" if i else ""
        print(f"{back}{text}", flush=True)
        time.sleep(FRAME_SECONDS)
