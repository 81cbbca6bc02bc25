"""Frames of classic-control tasks and of text worlds.

`RENDERERS` maps environment ids to functions `(state, obs) -> frame`, uint8 `[H, W, 3]`. `board`
draws a world from its text.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rljax.rendering.canvas import (
    BACKGROUND,
    BLUE,
    FAINT,
    GREEN,
    HILL,
    INK,
    ORANGE,
    TILE,
    Canvas,
    rectangle,
    transform,
)


def _cart_pole(state: Any, obs: np.ndarray) -> np.ndarray:
    x, _, theta, _ = (float(value) for value in obs)
    canvas = Canvas((480, 300), -2.7, -0.75, 5.4)
    canvas.line([(-3, -0.16), (3, -0.16)], 0.02, FAINT)
    for limit in (-2.4, 2.4):
        canvas.line([(limit, -0.16), (limit, -0.08)], 0.03, FAINT)
    for wheel in (-0.17, 0.17):
        canvas.disc((x + wheel, -0.1), 0.065, INK)
    canvas.polygon(transform(rectangle(0.62, 0.26), (x, 0.0)), BLUE)
    tip = (x + 1.15 * math.sin(theta), 0.06 + 1.15 * math.cos(theta))
    canvas.line([(x, 0.06), tip], 0.1, ORANGE)
    canvas.disc((x, 0.06), 0.045, BACKGROUND)
    return canvas.frame()


def _pendulum(state: Any, obs: np.ndarray) -> np.ndarray:
    cos, sin = float(obs[0]), float(obs[1])
    canvas = Canvas((320, 320), -1.4, -1.4, 2.8)
    canvas.disc((0, 0), 1.12, FAINT)
    canvas.disc((0, 0), 1.105, BACKGROUND)
    canvas.line([(0, 0), (-sin, cos)], 0.16, ORANGE)
    torque = float(np.ravel(getattr(state, "last_u", 0.0))[0])
    if abs(torque) > 0.05:  # an arrow about the pivot, in proportion to the torque
        end = 0.5 * math.pi + torque * 0.9
        arc = [transform([(0.42, 0)], (0, 0), a)[0] for a in np.linspace(0.5 * math.pi, end, 24)]
        canvas.line(arc, 0.035, BLUE)
        turn = end if torque > 0 else end + math.pi
        canvas.polygon(transform([(-0.09, 0), (0.09, 0), (0, 0.14)], arc[-1], turn), BLUE)
    canvas.disc((0, 0), 0.06, INK)
    return canvas.frame()


def _mountain_car(state: Any, obs: np.ndarray) -> np.ndarray:
    position = float(obs[0])

    def height(x):
        return 0.45 * math.sin(3 * x) + 0.55

    canvas = Canvas((480, 320), -1.3, -0.05, 2.0)
    hill = [(float(x), height(x)) for x in np.linspace(-1.3, 0.7, 120)]
    canvas.polygon([*hill, (0.7, -0.1), (-1.3, -0.1)], HILL)
    canvas.line(hill, 0.012, INK)
    pole = (0.5, height(0.5))
    canvas.line([pole, (0.5, pole[1] + 0.2)], 0.012, INK)
    flag = [(0.5, pole[1] + 0.2), (0.61, pole[1] + 0.155), (0.5, pole[1] + 0.11)]
    canvas.polygon(flag, GREEN)
    slope = math.atan(1.35 * math.cos(3 * position))
    car = (position, height(position))
    for wheel in transform([(-0.05, 0.025), (0.05, 0.025)], car, slope):
        canvas.disc(wheel, 0.026, INK)
    body = [(-0.1, 0.03), (0.1, 0.03), (0.1, 0.075), (-0.1, 0.075)]
    canvas.polygon(transform(body, car, slope), BLUE)
    cabin = [(-0.055, 0.07), (0.06, 0.07), (0.035, 0.115), (-0.035, 0.115)]
    canvas.polygon(transform(cabin, car, slope), BLUE)
    return canvas.frame()


def _acrobot(state: Any, obs: np.ndarray) -> np.ndarray:
    cos1, sin1, cos2, sin2 = (float(value) for value in obs[:4])
    canvas = Canvas((320, 320), -2.3, -2.3, 4.6)
    canvas.line([(-2.3, 1.0), (2.3, 1.0)], 0.025, GREEN)
    elbow = (sin1, -cos1)
    tip = (elbow[0] + sin1 * cos2 + cos1 * sin2, elbow[1] - cos1 * cos2 + sin1 * sin2)
    canvas.line([(0, 0), elbow], 0.2, BLUE)
    canvas.line([elbow, tip], 0.2, ORANGE)
    canvas.disc((0, 0), 0.06, BACKGROUND)
    canvas.disc(elbow, 0.06, BACKGROUND)
    return canvas.frame()


LETTERS = {"G": "G", "T": "G", "X": "X"}  # on the tiles of a text world


def board(text: str, before: str = "") -> np.ndarray:
    """Draws a text world: `o` the agent, `#` walls, `X` pits, `G` or `T` a goal.

    Args:
      text: the world, one character a cell.
      before: the same world with the agent in another cell, which shows the cell under the agent.

    Returns:
      A frame, uint8 `[H, W, 3]`.
    """
    rows = text.split("\n")
    cells = before.split("\n") if len(before) == len(text) else rows
    height, width = len(rows), max(map(len, rows))
    side = max(8, min(72, 480 // width))
    canvas = Canvas((side * width, side * height), 0, 0, width)
    tiles = {"#": INK, "X": ORANGE, "G": GREEN, "T": GREEN, "<": HILL}
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            center = (j + 0.5, height - i - 0.5)
            tile = transform(rectangle(0.94, 0.94), center)
            canvas.polygon(tile, tiles.get(cells[i][j] if cell == "o" else cell, TILE))
            if cell == "<":
                canvas.polygon(transform([(-0.2, 0), (0.15, 0.2), (0.15, -0.2)], center), FAINT)
            if cell in LETTERS and side >= 16:
                canvas.text(center, LETTERS[cell], 0.4 * side, BACKGROUND)
            if cell == "o":
                canvas.disc(center, 0.32, BLUE)
    return canvas.frame()


RENDERERS: dict[str, Callable[[Any, np.ndarray], np.ndarray]] = {
    "CartPole-v1": _cart_pole,
    "Pendulum-v1": _pendulum,
    "MountainCar-v0": _mountain_car,
    "MountainCarContinuous-v0": _mountain_car,
    "Acrobot-v1": _acrobot,
}
