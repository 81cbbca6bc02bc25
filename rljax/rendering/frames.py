"""Frames of any environment, as a GIF or as text.

`renderer_of` finds the renderer of an environment: tasks of gymnax, arms and the car have one of
rljax, and most suites their own. Other environments are drawn from their observations: grids and
images cell by cell, other arrays as bars with labels.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax.envs import worlds
from rljax.envs.partial import VISIBLE
from rljax.envs.wrapped import innermost
from rljax.rendering import classic_control, gymnax_tasks, robots, suites
from rljax.rendering.bars import draw_bars
from rljax.rendering.canvas import BACKGROUND
from rljax.rendering.captions import with_captions
from rljax.rendering.cells import draw_cells, grid_of, grid_text
from rljax.rendering.scene import Renderer, Scene, each
from rljax.types import PyTree, RecurrentObs, is_key

RENDERERS = classic_control.RENDERERS | robots.RENDERERS  # functions (state, obs) -> frame


def scenes(
    states: PyTree, observations: PyTree, copy: int | None = None,
    render: Callable[[PyTree], str] | None = None,
) -> list[Scene]:  # fmt: skip
    """Returns the scenes of an episode, from stacked states and observations.

    Args:
      states: states of an environment, wrapped or not, `[T, ...]`.
      observations: observations `[T, *obs_shape]`; of a `RecurrentObs`, those of the environment.
      copy: index of the copy to draw, if `states` and `observations` are `[T, B, ...]`.
      render: `Env.render`.
    """

    def on_host(x):
        return x if is_key(x) else np.asarray(x)

    obs = observations.obs if isinstance(observations, RecurrentObs) else observations
    states, obs = jax.tree.map(on_host, (states, obs))
    if copy is not None:
        # the state of environments on the host has no axis of copies
        states, obs = jax.tree.map(lambda x: x[:, copy] if x.ndim > 1 else x, (states, obs))
    length = len(jax.tree.leaves(obs)[0])
    steps = [jax.tree.map(lambda x, t=t: x[t], (states, obs)) for t in range(length)]
    return [Scene(innermost(state), obs_t, render and render(state)) for state, obs_t in steps]


def renderer_of(
    env_id: str, scenes: Sequence[Scene] = (), env_params: Mapping[str, Any] | None = None
) -> Renderer:
    """Returns how to draw an environment.

    Args:
      env_id: id of the environment.
      scenes: the scenes to draw; the first one tells whether the environment has text or images.
      env_params: parameters that the environment was made with.
    """
    suite, name = split_id(env_id)
    params = dict(env_params or {})
    actions = gymnax_tasks.ACTION_NAMES.get(name, ())
    if suite == "gymnax" and name in gymnax_tasks.RENDERERS:
        slow = "Bandit" in name or "Chain" in name
        return Renderer(each(gymnax_tasks.RENDERERS[name]), actions, 4 if slow else 20)
    if suite == "partial" and name in RENDERERS:
        return Renderer(each(lambda x: RENDERERS[name](x.state, _all_of(name, x.obs))), actions)
    drawing = RENDERERS.get(name if suite in ("gymnax", "gymnasium") else env_id)
    if drawing is not None:
        return Renderer(each(lambda scene: drawing(scene.state, scene.obs)), actions)
    if scenes and scenes[0].text is not None:
        if suite == "rljax" and name in worlds.WORLDS:
            actions = tuple(worlds.world_of(name, **params).grid.moves)
        return Renderer(_boards, actions, 3 if "\n" not in scenes[0].text else 6)
    make = suites.MAKERS.get(suite)
    renderer = make(name, params) if make else None
    if renderer is None:
        fps = 15 if suite == "atari" or name.startswith("ALE/") else 10
        names = gymnax_tasks.OBSERVATION_NAMES.get(name, ())
        renderer = Renderer(lambda scenes: _from_observations(scenes, names), actions, fps)
    return renderer


def split_id(env_id: str) -> tuple[str, str]:
    """Returns the suite of an id and the name there; the suite of a name alone is gymnax."""
    suite, slash, name = env_id.partition("/")
    return (suite, name) if slash else ("gymnax", env_id)


def _all_of(name: str, visible: np.ndarray) -> np.ndarray:
    """Returns an observation of a task with hidden velocities, with 0 for each of them."""
    obs = np.zeros(4)
    obs[list(VISIBLE[name])] = visible
    return obs


def _boards(scenes: Sequence[Scene]) -> list[np.ndarray]:
    return [classic_control.board(scene.text or "", scenes[0].text or "") for scene in scenes]


def _from_observations(scenes: Sequence[Scene], names: Sequence[str]) -> list[np.ndarray]:
    """Draws grids and images cell by cell, other observations as bars."""
    grids = [grid_of(scene.obs, scene.state) for scene in scenes]
    if grids[0] is None:
        return draw_bars([scene.obs for scene in scenes], names)
    return [draw_cells(grid) for grid in grids if grid is not None]


def draw_frames(
    env_id: str, scenes: Sequence[Scene], env_params: Mapping[str, Any] | None = None,
    renderer: Renderer | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """Draws an episode, with a caption if the scenes have actions or rewards.

    Args:
      env_id: id of the environment.
      scenes: the scenes, in the order of the episode.
      env_params: parameters that the environment was made with.
      renderer: output of `renderer_of`; None calls it.

    Returns:
      One frame for each scene, uint8 `[H, W, 3]`, all of the same size.
    """
    if not scenes:
        return []
    renderer = renderer or renderer_of(env_id, scenes, env_params)
    frames = _same_size(renderer.draw(scenes))
    actions, rewards = [x.action for x in scenes], [x.reward for x in scenes]
    if all(x is None for x in actions + rewards):
        return frames
    return with_captions(frames, actions, rewards, renderer.action_names)


def _same_size(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Puts smaller frames into the upper left corner of a frame of the largest size."""
    height, width = np.max([frame.shape[:2] for frame in frames], axis=0)
    return [
        np.pad(
            frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)),
            constant_values=BACKGROUND[0],
        )
        for frame in frames
    ]  # fmt: skip


def text(env_id: str, scene: Scene) -> str | None:
    """Returns the text of the environment, or a grid, one character a cell; None without either."""
    suite, name = split_id(env_id)
    if scene.text is not None:
        return scene.text
    has_pictures = name in RENDERERS or (suite in suites.MAKERS and suite != "pgx")
    grid = None if has_pictures else grid_of(scene.obs, scene.state)
    return None if grid is None else grid_text(name, grid)


def write_gif(frames: Sequence[np.ndarray], path: str | Path, fps: float = 30) -> None:
    """Writes frames as a GIF that repeats forever.

    Args:
      frames: uint8 `[H, W, 3]`, all of the same size.
      path: path of the file, which must end in `.gif`, in a folder that exists.
      fps: frames per second, at most 50, the limit of GIF viewers.

    Raises:
      ValueError: no frames, another suffix, or `fps` out of range.
    """
    from PIL import Image

    if not len(frames):
        raise ValueError("`frames` is empty, but a GIF needs at least one frame.")
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"`path` is {path}, but it must end in .gif.")
    if not 0 < fps <= 50:
        raise ValueError(f"`fps` is {fps}, but it must be above 0 and at most 50.")
    # one palette for all frames: with a palette each, colors would flicker
    examples = np.concatenate([frames[i] for i in np.linspace(0, len(frames) - 1, 8).astype(int)])
    palette = Image.fromarray(examples).quantize(128, dither=Image.Dither.NONE)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    duration = max(20, round(100 / fps) * 10)  # GIF delays are in hundredths of a second
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False
    )
