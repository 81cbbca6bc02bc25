"""Frames of the robot arms and of the car, from their states."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from rljax.envs import arms, car
from rljax.rendering.canvas import (
    BACKGROUND,
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    TILE,
    Canvas,
    Point,
    rectangle,
    transform,
)


def _point(position: Any) -> Point:
    x, y = np.asarray(position, np.float64)
    return float(x), float(y)


def _arm(state: arms.ArmState, obs: np.ndarray, *, relative: bool, half_side: float) -> np.ndarray:
    """Draws the links over the disc that the tip reaches; the goal is green while it is held."""
    joint, tip = map(_point, arms.positions(arms.angles_of(state), relative))
    base = (arms.BASE, arms.BASE)
    margin = arms.SQUARE_HALF_SIDE  # so that goals at the edge of the plane are seen completely
    canvas = Canvas((400, 400), -margin, -margin, arms.SIZE + 2 * margin)
    canvas.disc(base, arms.REACH, TILE)
    goal = transform(rectangle(2 * half_side, 2 * half_side), _point(state.goal))
    canvas.polygon(goal, GREEN if state.steps_at_goal > 0 else ORANGE)
    canvas.line([base, joint], 14, BLUE)
    canvas.line([joint, tip], 10, BLUE)
    canvas.disc(base, 14, INK)
    for center in (base, joint):
        canvas.disc(center, 4, BACKGROUND)
    canvas.disc(tip, 5, INK)
    return canvas.frame()


def _car(state: car.CarState, obs: np.ndarray) -> np.ndarray:
    """Draws the car and its sensor rays, up to the walls; the car is orange after a collision."""
    margin, center = 10.0, _point(state.position)
    canvas = Canvas((400, 400), -margin, -margin, car.SIZE + 2 * margin)
    walls = [(0.0, 0.0), (car.SIZE, 0.0), (car.SIZE, car.SIZE), (0.0, car.SIZE), (0.0, 0.0)]
    canvas.line(walls, 6, INK)
    side, middle = car.OBSTACLE[1] - car.OBSTACLE[0], sum(car.OBSTACLE) / 2
    canvas.polygon(transform(rectangle(side, side), (middle, middle)), INK)
    distances = np.asarray(obs, np.float64) * car.SENSOR_RANGE
    rays = [
        transform([(float(distance), 0.0)], center, float(state.heading) + angle)[0]
        for distance, angle in zip(distances, car.SENSOR_ANGLES, strict=True)
    ]
    for end in rays:
        canvas.line([center, end], 3, FAINT)
    for end, distance in zip(rays, distances, strict=True):
        if distance < car.SENSOR_RANGE:
            canvas.disc(end, 5, GREEN)
    collided = distances.min() < car.COLLISION_DISTANCE
    body = rectangle(car.CAR_LENGTH, car.CAR_WIDTH)
    window = transform(rectangle(6, 14), (8.0, 0.0))
    for outline, color in ((body, ORANGE if collided else BLUE), (window, BACKGROUND)):
        canvas.polygon(transform(outline, center, float(state.heading)), color)
    return canvas.frame()


RENDERERS: dict[str, Callable[[Any, np.ndarray], np.ndarray]] = {
    "rljax/Arm-easy": partial(_arm, relative=False, half_side=arms.DISC_RADIUS),
    "rljax/Arm-hard": partial(_arm, relative=False, half_side=arms.DISC_RADIUS),
    "rljax/TwoJointArm": partial(_arm, relative=True, half_side=arms.SQUARE_HALF_SIDE),
    "rljax/Car2D": _car,
}
