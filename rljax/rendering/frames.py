"""Pictures of environments, for `rljax watch`: frames, a GIF of them, text for grids.

Everything is drawn from what the agent observes, so there is a picture of any environment:
classic control as it is known, grids and images cell by cell, other vectors as bars.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax.envs.wrappers import innermost
from rljax.rendering.classic_control import BLUE, FAINT, INK, ORANGE, PAINTERS, Canvas, board
from rljax.types import PyTree, is_key

NIGHT, GAP = (26, 28, 37), (18, 19, 26)  # a cell with nothing in it, and between cells
CHANNELS = (
    (240, 236, 224), (240, 160, 75), (92, 108, 138), (82, 168, 154), (224, 96, 96), (140, 120, 205),
    (96, 152, 222), (118, 130, 88), (222, 132, 180), (170, 200, 96), (120, 88, 72), (66, 186, 208),
)  # fmt: skip
SYMBOLS = "@o.#x$+*%&=~"  # of channels whose meaning is not known
MEANINGS = {  # a symbol a channel, the first that is on is shown
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
    """One moment of one environment."""

    state: Any  # the environment's own state, out of its wrappers
    obs: Any  # [*obs_shape]
    text: str | None = None  # as the environment itself writes it


def scenes(
    states: PyTree, observations: PyTree, copy: int | None = None,
    render: Callable[[PyTree], str] | None = None,
) -> list[Scene]:  # fmt: skip
    """The moments of an episode, from the states and observations that a scan stacked.

    Args:
      states: of an environment with any wrappers around it, `[T, ...]`.
      observations: `[T, *obs_shape]`; where it is a tree, its first array is drawn.
      copy: for `[T, B, ...]`, as `batched` makes them: which of the B.
      render: the environment's own.
    """

    def on_host(x):
        return x if is_key(x) else np.asarray(x)

    states = jax.tree.map(on_host, states)
    obs = np.asarray(jax.tree.leaves(observations)[0])
    if copy is not None:
        states, obs = jax.tree.map(lambda x: x[:, copy], (states, obs))
    moments = [jax.tree.map(lambda x, t=t: x[t], states) for t in range(len(obs))]
    return [
        Scene(innermost(state), seen, render and render(state))
        for state, seen in zip(moments, obs, strict=True)
    ]


def frame_rate(env_id: str, scenes: Sequence[Scene] = ()) -> int:
    """Frames a second at which an episode is good to watch: games on a grid move cell by cell."""
    if scenes and scenes[0].text is not None:
        return 3 if "\n" not in scenes[0].text else 6
    return 30 if env_id.removeprefix("gymnax/") in PAINTERS else 10


def draw_frames(env_id: str, scenes: Sequence[Scene]) -> list[np.ndarray]:
    """One picture a scene, uint8 `[H, W, 3]`, all of one size."""
    name = env_id.removeprefix("gymnax/")
    if name in PAINTERS:
        return [PAINTERS[name](scene.state, scene.obs) for scene in scenes]
    if scenes and scenes[0].text is not None:
        return [board(scene.text or "", scenes[0].text) for scene in scenes]
    if scenes and _grid(scenes[0]) is not None:
        return [_cells(scene) for scene in scenes]
    return _bars([np.ravel(np.asarray(scene.obs, np.float64)) for scene in scenes])


def text(env_id: str, scene: Scene) -> str | None:
    """A grid world as text, a character a cell; None where there is no grid of cells."""
    if scene.text is not None:
        return scene.text
    name = env_id.removeprefix("gymnax/")
    grid = None if name in PAINTERS else _grid(scene)
    if grid is None or grid.dtype != bool:
        return None
    known = MEANINGS.get(name) or SYMBOLS
    symbols = np.array([*known, " "])
    channel = np.minimum(grid.argmax(axis=-1), len(known) - 1)
    channel = np.where(grid.any(axis=-1), channel, len(known))
    rows = ["|" + "".join(row) + "|" for row in symbols[channel]]
    edge = "+" + "-" * grid.shape[1] + "+"
    return "\n".join([edge, *rows, edge])


def write_gif(frames: Sequence[np.ndarray], path: str | Path, fps: float = 30) -> None:
    """Writes frames as a GIF that repeats.

    Args:
      frames: uint8 `[H, W, 3]`, all of one size.
      path: ends in `.gif`; its folder exists.
      fps: frames a second, at most 50, more than which no viewer shows.

    Raises:
      ValueError: no frames, another suffix, or `fps` out of range.
    """
    from PIL import Image

    if not len(frames):
        raise ValueError("there are no frames: a GIF needs at least one.")
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"`path` is {path}, but frames are written as a GIF: let it end in .gif.")
    if not 0 < fps <= 50:
        raise ValueError(f"`fps` is {fps}, but it must be above 0 and at most 50.")
    # one palette for all: with one of its own, each frame would shimmer against the last
    some = np.concatenate([frames[i] for i in np.linspace(0, len(frames) - 1, 8).astype(int)])
    palette = Image.fromarray(some).quantize(128, dither=Image.Dither.NONE)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    duration = max(20, round(100 / fps) * 10)  # a GIF counts in hundredths of a second
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False
    )


def _grid(scene: Scene) -> np.ndarray | None:
    """The observation as cells: bool `[H, W, C]`, or a picture `[H, W, 3]`, or None."""
    obs = np.asarray(scene.obs)
    obs = obs[..., None] if obs.ndim == 2 else obs
    if obs.ndim != 3 or min(obs.shape[:2]) < 2:
        return None
    if np.isin(obs, (0, 1)).all():
        return _apart(scene, obs > 0) if hasattr(scene.state, "paddle_x") else obs > 0
    if obs.shape[-1] not in (1, 3):
        return (obs > 0) & (obs == obs.max(axis=-1, keepdims=True))
    if obs.dtype != np.uint8:
        low, high = float(obs.min()), float(obs.max())
        obs = (255 * (obs - low) / max(high - low, 1e-9)).astype(np.uint8)
    return np.broadcast_to(obs, (*obs.shape[:2], 3))


def _apart(scene: Scene, obs: np.ndarray) -> np.ndarray:
    """Catch observes its paddle and its ball in one channel: here in two."""
    paddle = np.zeros_like(obs)
    paddle[int(scene.state.paddle_y), int(scene.state.paddle_x)] = True
    return np.concatenate([paddle, obs & ~paddle], axis=-1)


def _cells(scene: Scene) -> np.ndarray:
    """Each cell a square: the colour of its first channel that is on, a gap around it."""
    grid = _grid(scene)
    assert grid is not None
    side = max(1, 320 // max(grid.shape[:2]))
    if grid.dtype != bool:
        return np.repeat(np.repeat(grid, side, axis=0), side, axis=1)
    colors = np.array(CHANNELS, np.uint8)[grid.argmax(axis=-1) % len(CHANNELS)]
    colors = np.where(grid.any(axis=-1, keepdims=True), colors, np.array(NIGHT, np.uint8))
    picture = np.repeat(np.repeat(colors, side, axis=0), side, axis=1)
    if side >= 6:
        picture[::side] = picture[:, ::side] = GAP
    return picture


def _bars(vectors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each component a bar up or down, against the largest that it is in all the frames.

    Behind it, fainter, stand the moments just before; below, how far the episode has gone.
    """
    if not len(vectors):
        return []
    values = np.stack(vectors)[:, :MAX_BARS]
    values = values / np.maximum(np.abs(values).max(axis=0), 1e-9)
    out = []
    for t, now in enumerate(values):
        count = len(now)
        canvas = Canvas((480, 240), -0.5, -0.25 * count, count)
        unit = 0.2 * count  # how long a bar of 1 is
        canvas.line([(-0.5, 0), (count - 0.5, 0)], 0.008 * unit, FAINT)
        for i, value in enumerate(now):
            for old in values[max(0, t - 8) : t, i]:
                level = float(old) * unit
                canvas.line([(i - 0.28, level), (i + 0.28, level)], 0.012 * unit, FAINT)
            box = [(i - 0.3, 0), (i + 0.3, 0), (i + 0.3, value * unit), (i - 0.3, value * unit)]
            canvas.polygon(box, BLUE if value >= 0 else ORANGE)
        done = count * (t + 1) / len(values) - 0.5
        canvas.line([(-0.5, -0.24 * count), (done, -0.24 * count)], 0.03 * unit, INK)
        out.append(canvas.array())
    return out
