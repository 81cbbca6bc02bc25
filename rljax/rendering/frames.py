"""Frames of any environment, as a GIF or as text.

Classic-control tasks, arms and the car have their own renderers. Other environments are drawn
from their observations: grids and images cell by cell, vectors as bars.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax.envs.wrappers import innermost
from rljax.rendering import classic_control, robots
from rljax.rendering.canvas import BLUE, FAINT, INK, ORANGE, Canvas
from rljax.types import PyTree, is_key

RENDERERS = classic_control.RENDERERS | robots.RENDERERS

EMPTY, GAP = (26, 28, 37), (18, 19, 26)  # colors of an empty cell, and of the lines between cells
CHANNEL_COLORS = (
    (240, 236, 224), (240, 160, 75), (92, 108, 138), (82, 168, 154), (224, 96, 96), (140, 120, 205),
    (96, 152, 222), (118, 130, 88), (222, 132, 180), (170, 200, 96), (120, 88, 72), (66, 186, 208),
)  # fmt: skip
DEFAULT_SYMBOLS = "@o.#x$+*%&=~"  # one symbol a channel, for environments not listed below
CHANNEL_SYMBOLS = {
    "Asterix-MinAtar": "@x.$",
    "Breakout-MinAtar": "=o.#",
    "Catch-bsuite": "=o",
    "Freeway-MinAtar": "@x.....",
    "Pong-misc": "#o.",
    "Seaquest-MinAtar": "@=-.!xS~+d",
    "SpaceInvaders-MinAtar": "@x<>|!",
}
MAX_BARS = 64


class Scene(NamedTuple):
    """What there is to draw at one step of an episode.

    Attributes:
      state: state of the innermost environment, without that of its wrappers.
      obs: observation, `[*obs_shape]`.
      text: output of `Env.render`; None if the environment has none.
    """

    state: Any
    obs: Any
    text: str | None = None


def scenes(
    states: PyTree, observations: PyTree, copy: int | None = None,
    render: Callable[[PyTree], str] | None = None,
) -> list[Scene]:  # fmt: skip
    """Returns the scenes of an episode, from stacked states and observations.

    Args:
      states: states of an environment, wrapped or not, `[T, ...]`.
      observations: observations `[T, *obs_shape]`; of a pytree, the first array is used.
      copy: index of the copy to draw, if `states` and `observations` are `[T, B, ...]`.
      render: `Env.render`.
    """

    def on_host(x):
        return x if is_key(x) else np.asarray(x)

    states = jax.tree.map(on_host, states)
    obs = np.asarray(jax.tree.leaves(observations)[0])
    if copy is not None:
        states, obs = jax.tree.map(lambda x: x[:, copy], (states, obs))
    steps = [jax.tree.map(lambda x, t=t: x[t], states) for t in range(len(obs))]
    return [
        Scene(innermost(state), obs_t, render and render(state))
        for state, obs_t in zip(steps, obs, strict=True)
    ]


def frame_rate(env_id: str, scenes: Sequence[Scene] = ()) -> int:
    """Returns a suitable number of frames per second: few for worlds that move cell by cell."""
    if env_id.removeprefix("gymnax/") in RENDERERS:
        return 30
    if scenes and scenes[0].text is not None:
        return 3 if "\n" not in scenes[0].text else 6
    return 10


def draw_frames(env_id: str, scenes: Sequence[Scene]) -> list[np.ndarray]:
    """Returns one frame per scene, uint8 `[H, W, 3]`, all of the same size."""
    name = env_id.removeprefix("gymnax/")
    if name in RENDERERS:
        return [RENDERERS[name](scene.state, scene.obs) for scene in scenes]
    if scenes and scenes[0].text is not None:
        return [classic_control.board(scene.text or "", scenes[0].text) for scene in scenes]
    if scenes and _grid(scenes[0]) is not None:
        return [_cells(scene) for scene in scenes]
    return _bars([np.ravel(np.asarray(scene.obs, np.float64)) for scene in scenes])


def text(env_id: str, scene: Scene) -> str | None:
    """Returns the text of the environment, or a grid, one character a cell; None without either."""
    if scene.text is not None:
        return scene.text
    name = env_id.removeprefix("gymnax/")
    grid = None if name in RENDERERS else _grid(scene)
    if grid is None or grid.dtype != bool:
        return None
    symbols = CHANNEL_SYMBOLS.get(name) or DEFAULT_SYMBOLS
    channel = np.minimum(grid.argmax(axis=-1), len(symbols) - 1)  # the first channel that is on
    channel = np.where(grid.any(axis=-1), channel, len(symbols))
    rows = ["|" + "".join(row) + "|" for row in np.array([*symbols, " "])[channel]]
    edge = "+" + "-" * grid.shape[1] + "+"
    return "\n".join([edge, *rows, edge])


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


def _grid(scene: Scene) -> np.ndarray | None:
    """Returns the observation as cells, bool `[H, W, C]`, as an image `[H, W, 3]`, or None."""
    obs = np.asarray(scene.obs)
    obs = obs[..., None] if obs.ndim == 2 else obs
    if obs.ndim != 3 or min(obs.shape[:2]) < 2:
        return None
    if np.isin(obs, (0, 1)).all():
        is_catch = hasattr(scene.state, "paddle_x")
        return _catch_channels(scene, obs > 0) if is_catch else obs > 0
    if obs.shape[-1] not in (1, 3):
        return (obs > 0) & (obs == obs.max(axis=-1, keepdims=True))
    if obs.dtype != np.uint8:
        low, high = float(obs.min()), float(obs.max())
        obs = (255 * (obs - low) / max(high - low, 1e-9)).astype(np.uint8)
    return np.broadcast_to(obs, (*obs.shape[:2], 3))


def _catch_channels(scene: Scene, obs: np.ndarray) -> np.ndarray:
    """Separates paddle and ball of Catch, which observes both in one channel."""
    paddle = np.zeros_like(obs)
    paddle[int(scene.state.paddle_y), int(scene.state.paddle_x)] = True
    return np.concatenate([paddle, obs & ~paddle], axis=-1)


def _cells(scene: Scene) -> np.ndarray:
    """Draws each cell as a square in the color of its first channel that is on."""
    grid = _grid(scene)
    assert grid is not None
    side = max(1, 320 // max(grid.shape[:2]))
    if grid.dtype != bool:
        return np.repeat(np.repeat(grid, side, axis=0), side, axis=1)
    colors = np.array(CHANNEL_COLORS, np.uint8)[grid.argmax(axis=-1) % len(CHANNEL_COLORS)]
    colors = np.where(grid.any(axis=-1, keepdims=True), colors, np.array(EMPTY, np.uint8))
    frame = np.repeat(np.repeat(colors, side, axis=0), side, axis=1)
    if side >= 6:
        frame[::side] = frame[:, ::side] = GAP
    return frame


def _bars(vectors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Draws each component as a bar, relative to its largest absolute value in the episode.

    Faint lines show the preceding steps; a line at the bottom shows the progress of the episode.
    """
    if not len(vectors):
        return []
    values = np.stack(vectors)[:, :MAX_BARS]
    values = values / np.maximum(np.abs(values).max(axis=0), 1e-9)
    frames = []
    for t, components in enumerate(values):
        count = len(components)
        canvas = Canvas((480, 240), -0.5, -0.25 * count, count)
        unit = 0.2 * count  # length of a bar of value 1
        canvas.line([(-0.5, 0), (count - 0.5, 0)], 0.008 * unit, FAINT)
        for i, value in enumerate(components):
            for earlier in values[max(0, t - 8) : t, i]:
                level = float(earlier) * unit
                canvas.line([(i - 0.28, level), (i + 0.28, level)], 0.012 * unit, FAINT)
            box = [(i - 0.3, 0), (i + 0.3, 0), (i + 0.3, value * unit), (i - 0.3, value * unit)]
            canvas.polygon(box, BLUE if value >= 0 else ORANGE)
        done = count * (t + 1) / len(values) - 0.5
        canvas.line([(-0.5, -0.24 * count), (done, -0.24 * count)], 0.03 * unit, INK)
        frames.append(canvas.frame())
    return frames
