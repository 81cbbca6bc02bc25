"""Pictures of environments, for `rljax watch`: frames, a GIF of them, text for grids.

Everything is drawn from what the agent observes, so there is a picture of any environment:
classic control as it is known, grids and images cell by cell, other vectors as bars.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.envs.wrappers import innermost
from rljax.types import PyTree

Point = tuple[float, float]

PAPER, INK, FAINT = (250, 249, 246), (52, 58, 72), (221, 219, 212)
BLUE, ORANGE, GREEN, HILL = (66, 106, 158), (231, 126, 73), (67, 153, 116), (222, 228, 216)
NIGHT = (24, 26, 34)  # behind grids
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


def scenes(states: PyTree, observations: PyTree, copy: int | None = None) -> list[Scene]:
    """The moments of an episode, from the states and observations that a scan stacked.

    Args:
      states: of an environment with any wrappers around it, `[T, ...]`.
      observations: `[T, *obs_shape]`; where it is a tree, its first array is drawn.
      copy: for `[T, B, ...]`, as `batched` makes them: which of the B.
    """
    import jax

    def own(tree):
        keyless = (x for x in jax.tree.leaves(tree) if not _is_key(x))
        return tree if all(isinstance(x, np.ndarray) for x in keyless) else jax.device_get(tree)

    states, obs = own(innermost(states)), np.asarray(jax.tree.leaves(observations)[0])
    at = (slice(None),) if copy is None else (slice(None), copy)
    states, obs = jax.tree.map(lambda x: x[at], states), obs[at]
    return [Scene(jax.tree.map(lambda x, t=t: x[t], states), obs[t]) for t in range(len(obs))]


def _is_key(x: Any) -> bool:
    from rljax.types import is_key

    return is_key(x)


def frames(env_id: str, scenes: Sequence[Scene]) -> list[np.ndarray]:
    """One picture a scene, uint8 `[H, W, 3]`, all of one size."""
    name = env_id.removeprefix("gymnax/")
    if name in PAINTERS:
        return [PAINTERS[name](scene) for scene in scenes]
    if scenes and _grid(name, scenes[0]) is not None:
        return [_cells(name, scene) for scene in scenes]
    return _bars([np.ravel(np.asarray(scene.obs, np.float64)) for scene in scenes])


def text(env_id: str, scene: Scene) -> str | None:
    """A grid world as text, a character a cell; None where there is no grid of cells."""
    name = env_id.removeprefix("gymnax/")
    grid = None if name in PAINTERS else _grid(name, scene)
    if grid is None or grid.dtype != bool:
        return None
    symbols = np.array([*(MEANINGS.get(name) or SYMBOLS), " "])
    channel = np.minimum(_first_on(grid), len(symbols) - 1)
    channel = np.where(grid.any(axis=-1), channel, len(symbols) - 1)
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


class _Canvas:
    """A drawing in units of its own, y upwards, drawn three times too large and scaled down."""

    FINER = 3

    def __init__(self, size: tuple[int, int], left: float, bottom: float, width: float) -> None:
        from PIL import Image, ImageDraw

        self.scale = size[0] * self.FINER / width
        self.left, self.top = left, bottom + size[1] * self.FINER / self.scale
        self.image = Image.new("RGB", (size[0] * self.FINER, size[1] * self.FINER), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def _pixel(self, point: Point) -> Point:
        return (point[0] - self.left) * self.scale, (self.top - point[1]) * self.scale

    def polygon(self, points: Sequence[Point], color: tuple) -> None:
        self.draw.polygon([self._pixel(point) for point in points], fill=color)

    def disc(self, center: Point, radius: float, color: tuple) -> None:
        x, y = self._pixel(center)
        r = radius * self.scale
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=color)

    def line(self, points: Sequence[Point], width: float, color: tuple) -> None:
        """A line with round ends and joints."""
        pixels = [self._pixel(point) for point in points]
        self.draw.line(pixels, fill=color, width=max(1, round(width * self.scale)), joint="curve")
        for end in (points[0], points[-1]):
            self.disc(end, width / 2, color)

    def array(self) -> np.ndarray:
        return np.asarray(self.image.reduce(self.FINER))


def _moved(points: Sequence[Point], to: Point, angle: float = 0.0) -> list[Point]:
    """Points turned about the origin, counterclockwise, and then moved."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [(to[0] + cos * x - sin * y, to[1] + sin * x + cos * y) for x, y in points]


def _box(width: float, height: float) -> list[Point]:
    """A rectangle around the origin."""
    x, y = width / 2, height / 2
    return [(-x, -y), (x, -y), (x, y), (-x, y)]


def _cart_pole(scene: Scene) -> np.ndarray:
    x, _, theta, _ = (float(value) for value in scene.obs)
    canvas = _Canvas((480, 300), -2.7, -0.75, 5.4)
    canvas.line([(-3, -0.16), (3, -0.16)], 0.02, FAINT)
    for limit in (-2.4, 2.4):
        canvas.line([(limit, -0.16), (limit, -0.08)], 0.03, FAINT)
    for wheel in (-0.17, 0.17):
        canvas.disc((x + wheel, -0.1), 0.065, INK)
    canvas.polygon(_moved(_box(0.62, 0.26), (x, 0.0)), BLUE)
    tip = (x + 1.15 * math.sin(theta), 0.06 + 1.15 * math.cos(theta))
    canvas.line([(x, 0.06), tip], 0.1, ORANGE)
    canvas.disc((x, 0.06), 0.045, PAPER)
    return canvas.array()


def _pendulum(scene: Scene) -> np.ndarray:
    cos, sin = float(scene.obs[0]), float(scene.obs[1])
    canvas = _Canvas((320, 320), -1.4, -1.4, 2.8)
    canvas.disc((0, 0), 1.12, FAINT)
    canvas.disc((0, 0), 1.105, PAPER)
    canvas.line([(0, 0), (-sin, cos)], 0.16, ORANGE)
    torque = float(np.ravel(getattr(scene.state, "last_u", 0.0))[0])
    if abs(torque) > 0.05:  # an arc about the pivot, as long as the torque is strong
        end = 0.5 * math.pi + torque * 0.9
        arc = [_moved([(0.42, 0)], (0, 0), a)[0] for a in np.linspace(0.5 * math.pi, end, 24)]
        canvas.line(arc, 0.035, BLUE)
        turn = end if torque > 0 else end + math.pi
        canvas.polygon(_moved([(-0.09, 0), (0.09, 0), (0, 0.14)], arc[-1], turn), BLUE)
    canvas.disc((0, 0), 0.06, INK)
    return canvas.array()


def _mountain_car(scene: Scene) -> np.ndarray:
    position = float(scene.obs[0])

    def height(x):
        return 0.45 * math.sin(3 * x) + 0.55

    canvas = _Canvas((480, 300), -1.3, -0.05, 2.0)
    hill = [(float(x), height(x)) for x in np.linspace(-1.3, 0.7, 120)]
    canvas.polygon([*hill, (0.7, -0.1), (-1.3, -0.1)], HILL)
    canvas.line(hill, 0.012, INK)
    pole = (0.5, height(0.5))
    canvas.line([pole, (0.5, pole[1] + 0.2)], 0.012, INK)
    flag = [(0.5, pole[1] + 0.2), (0.61, pole[1] + 0.155), (0.5, pole[1] + 0.11)]
    canvas.polygon(flag, GREEN)
    slope = math.atan(1.35 * math.cos(3 * position))
    here = (position, height(position))
    for wheel in _moved([(-0.05, 0.025), (0.05, 0.025)], here, slope):
        canvas.disc(wheel, 0.026, INK)
    canvas.polygon(_moved([(-0.1, 0.03), (0.1, 0.03), (0.1, 0.075), (-0.1, 0.075)], here, slope), BLUE)
    cabin = [(-0.055, 0.07), (0.06, 0.07), (0.035, 0.115), (-0.035, 0.115)]
    canvas.polygon(_moved(cabin, here, slope), BLUE)
    return canvas.array()


def _acrobot(scene: Scene) -> np.ndarray:
    cos1, sin1, cos2, sin2 = (float(value) for value in scene.obs[:4])
    canvas = _Canvas((320, 320), -2.3, -2.3, 4.6)
    canvas.line([(-2.3, 1.0), (2.3, 1.0)], 0.025, GREEN)
    elbow = (sin1, -cos1)
    tip = (elbow[0] + sin1 * cos2 + cos1 * sin2, elbow[1] - cos1 * cos2 + sin1 * sin2)
    canvas.line([(0, 0), elbow], 0.2, BLUE)
    canvas.line([elbow, tip], 0.2, ORANGE)
    canvas.disc((0, 0), 0.06, PAPER)
    canvas.disc(elbow, 0.06, PAPER)
    return canvas.array()


PAINTERS: dict[str, Callable[[Scene], np.ndarray]] = {
    "CartPole-v1": _cart_pole,
    "Pendulum-v1": _pendulum,
    "MountainCar-v0": _mountain_car,
    "MountainCarContinuous-v0": _mountain_car,
    "Acrobot-v1": _acrobot,
}


def _grid(name: str, scene: Scene) -> np.ndarray | None:
    """The observation as cells: bool `[H, W, C]`, or a picture `[H, W, 3]`, or None."""
    obs = np.asarray(scene.obs)
    obs = obs[..., None] if obs.ndim == 2 else obs
    if obs.ndim != 3 or min(obs.shape[:2]) < 2:
        return None
    if np.isin(obs, (0, 1)).all():
        return _apart(scene, obs > 0) if name == "Catch-bsuite" else obs > 0
    if obs.shape[-1] not in (1, 3):
        return (obs > 0) & (obs == obs.max(axis=-1, keepdims=True))
    if obs.dtype != np.uint8:
        low, high = float(obs.min()), float(obs.max())
        obs = (255 * (obs - low) / max(high - low, 1e-9)).astype(np.uint8)
    return np.broadcast_to(obs, (*obs.shape[:2], 3))


def _apart(scene: Scene, obs: np.ndarray) -> np.ndarray:
    """Catch: paddle and ball, which it observes in one channel, in two."""
    paddle = np.zeros_like(obs)
    paddle[int(scene.state.paddle_y), int(scene.state.paddle_x)] = True
    return np.concatenate([paddle, obs & ~paddle], axis=-1)


def _first_on(grid: np.ndarray) -> np.ndarray:
    return grid.argmax(axis=-1)


def _cells(name: str, scene: Scene) -> np.ndarray:
    """Each cell a square: the colour of its first channel that is on, a gap around it."""
    grid = _grid(name, scene)
    assert grid is not None
    side = max(1, 320 // max(grid.shape[:2]))
    if grid.dtype != bool:
        return np.repeat(np.repeat(grid, side, axis=0), side, axis=1)
    colors = np.array(CHANNELS, np.uint8)[_first_on(grid) % len(CHANNELS)]
    colors = np.where(grid.any(axis=-1, keepdims=True), colors, np.array(NIGHT, np.uint8))
    picture = np.repeat(np.repeat(colors, side, axis=0), side, axis=1)
    if side >= 6:
        picture[::side] = picture[:, ::side] = NIGHT
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
        canvas = _Canvas((480, 240), -0.5, -1.25, count)
        unit = 240 / 480 * count / 2.5  # the canvas has square units: bars of 1 are this high
        canvas.left, canvas.top = -0.5, 1.25 * unit
        canvas.line([(-0.5, 0), (count - 0.5, 0)], 0.008 * unit, FAINT)
        past = values[max(0, t - 8) : t]
        for i, value in enumerate(now):
            for old in past[:, i]:
                level = float(old) * unit
                canvas.line([(i - 0.28, level), (i + 0.28, level)], 0.012 * unit, FAINT)
            top = float(value) * unit
            box = [(i - 0.3, 0), (i + 0.3, 0), (i + 0.3, top), (i - 0.3, top)]
            canvas.polygon(box, BLUE if value >= 0 else ORANGE)
        done = -0.5 + count * (t + 1) / len(values)
        canvas.line([(-0.5, -1.22 * unit), (done, -1.22 * unit)], 0.03 * unit, INK)
        out.append(canvas.array())
    return out
