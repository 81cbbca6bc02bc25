"""Frames of the tasks of gymnax that are not classic control: grids, a plane, an arm, bandits.

Mazes become text worlds (`maze_text`). `RENDERERS` maps the ids of the other tasks to functions
`scene -> frame`, uint8 `[H, W, 3]`.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rljax.envs.gymnax import load_gymnax
from rljax.envs.wrapped import innermost
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
from rljax.rendering.captions import number
from rljax.rendering.scene import Scene

MAZES = ("FourRooms-misc", "MetaMaze-misc", "FrozenLake-misc")
ACTION_NAMES = {
    "Acrobot-v1": ("-1", "0", "1"),
    "CartPole-v1": ("left", "right"),
    "FourRooms-misc": ("up", "right", "down", "left"),
    "FrozenLake-misc": ("left", "down", "right", "up"),
    "MetaMaze-misc": ("up", "right", "down", "left"),
    "MountainCar-v0": ("left", "none", "right"),
}
OBSERVATION_NAMES = {
    "DiscountingChain-bsuite": ("context", "time"),
    "MemoryChain-bsuite": ("time left", "query", "bit to remember"),
}
PALE_GREEN, RAIN, SUN = (199, 224, 208), (120, 158, 204), (240, 190, 70)


def maze_text(name: str, params: Mapping[str, Any]) -> Callable[[Any], str] | None:
    """Returns the function `state -> text` of a maze; None for other tasks.

    `#` is a wall, `X` a hole, `G` the goal and `o` the agent.

    Args:
      name: id of the task.
      params: parameters that it was made with.
    """
    if name not in MAZES:
        return None
    make = load_gymnax().make
    known = inspect.signature(type(make(name)[0]).__init__).parameters
    env, _ = make(name, **{key: params[key] for key in params if key in known})
    if name == "FrozenLake-misc":
        tiles = np.array(["-", "-", "X", "G"])[np.asarray(env.desc)]
    else:
        tiles = np.where(np.asarray(env.env_map), "-", "#")

    def text(state):
        state, cells = innermost(state), tiles.copy()
        if hasattr(state, "goal"):
            cells[tuple(np.asarray(state.goal))] = "G"
            agent = tuple(np.asarray(state.pos))
        else:
            agent = divmod(int(state.position), cells.shape[1])
        cells[agent] = "o"
        return "\n".join("".join(row) for row in cells)

    return text


def _point(position: Any) -> Point:
    x, y = np.asarray(position, np.float64).ravel()
    return float(x), float(y)


def _moving_disc(
    canvas: Canvas, position: Any, radius: float, low: Point, high: Point
) -> None:  # fmt: skip
    """Draws a disc; outside of the view, an arrow at the edge with the coordinates."""
    x, y = _point(position)
    inside = min(max(x, low[0]), high[0]), min(max(y, low[1]), high[1])
    if (x, y) == inside:
        canvas.disc((x, y), radius, BLUE)
        return
    angle = math.atan2(y - inside[1], x - inside[0])
    arrow = [(radius, 0), (-radius, radius), (-radius, -radius)]
    canvas.polygon(transform(arrow, inside, angle), BLUE)
    middle = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
    inward = [at + 0.12 * (to - at) for at, to in zip(inside, middle, strict=True)]
    anchor = "lm" if inside[0] < middle[0] else "rm"
    canvas.text((inward[0], inward[1]), f"at ({x:.1f}, {y:.1f})", 12, BLUE, anchor)


def _point_robot(scene: Scene) -> np.ndarray:
    """Draws the half circle of goals, the goal with its radius, and the robot."""
    state, low, high = scene.state, (-1.35, -0.55), (1.35, 1.35)
    canvas = Canvas((432, 320), -1.45, -0.7, 2.9)
    arc = [(math.cos(a), math.sin(a)) for a in np.linspace(0, math.pi, 60)]
    canvas.line(arc, 0.015, FAINT)
    canvas.disc((0, 0), 0.02, FAINT)
    goal = _point(state.goal)
    canvas.disc(goal, 0.2, PALE_GREEN)
    canvas.disc(goal, 0.03, GREEN)
    _moving_disc(canvas, state.pos, 0.055, low, high)
    canvas.text((-1.4, -0.6), f"goals reached: {int(state.goals_reached)}", 12, INK, "lm")
    return canvas.frame()


def _reacher(scene: Scene) -> np.ndarray:
    """Draws links of length 1, whose angles are all measured from the x axis, and the goal."""
    state = scene.state
    angles = np.asarray(state.angles, np.float64).ravel()
    size = len(angles) + 0.4
    canvas = Canvas((360, 360), -size, -size, 2 * size)
    canvas.disc((0, 0), len(angles), TILE)
    canvas.disc(_point(state.goal_xy), 0.06 * size, GREEN)
    joints = [(0.0, 0.0)]
    for angle in angles:
        joints.append((joints[-1][0] + math.cos(angle), joints[-1][1] + math.sin(angle)))
    for i, link in enumerate(itertools.pairwise(joints)):
        canvas.line(link, 0.06 * size, BLUE if i % 2 == 0 else ORANGE)
    for joint in joints[:-1]:
        canvas.disc(joint, 0.018 * size, BACKGROUND)
    canvas.disc(joints[-1], 0.024 * size, INK)
    return canvas.frame()


def _swimmer(scene: Scene) -> np.ndarray:
    """Draws the swimmer with its velocity, the goal, and the urchins around which reward is 0."""
    state, low, high = scene.state, (-1.4, -1.4), (1.4, 1.4)
    canvas = Canvas((360, 360), -1.5, -1.5, 3.0)
    canvas.polygon(rectangle(2, 2), TILE)
    goal = _point(state.goal_xy)
    canvas.disc(goal, 0.09, GREEN)
    for urchin in np.asarray(state.urchin_xys, np.float64):
        center = _point(urchin)
        for angle in np.arange(0, math.pi, math.pi / 5):
            canvas.line(transform([(-0.12, 0), (0.12, 0)], center, angle), 0.012, INK)
        canvas.disc(center, 0.06, INK)
    x, y = _point(state.xy)
    velocity = np.clip(_point(state.xy_vel), -4, 4)
    if low[0] < x < high[0] and low[1] < y < high[1]:
        tail = (x - 0.25 * velocity[0], y - 0.25 * velocity[1])
        canvas.line([tail, (x, y)], 0.035, ORANGE)
    _moving_disc(canvas, state.xy, 0.07, low, high)
    return canvas.frame()


def _bandit(scene: Scene, means: Any, margin: float = 0.0) -> np.ndarray:
    """Draws the mean reward of each arm as a bar, and the reward of the chosen arm as a line."""
    state, means = scene.state, np.asarray(means, np.float64).ravel()
    action, reward = scene.action, scene.reward
    if action is None and hasattr(state, "last_action") and float(state.time) > 0:
        action, reward = state.last_action, state.last_reward
    width, height, left = 480, 260, 44
    canvas = Canvas((width, height), 0, 0, width)
    low, high = min(0.0, means.min()) - margin, max(0.0 if margin else 1.0, means.max()) + margin

    def level(value):
        return 40 + 175 * (min(max(value, low), high) - low) / (high - low)

    canvas.text((8, height - 14), "mean reward of each arm, hidden from the agent", 12, INK, "lm")
    for value in sorted({low, 0.0, high}):
        canvas.line([(left, level(value)), (width - 8, level(value))], 1, FAINT)
        canvas.text((left - 6, level(value)), number(round(value, 2)), 10, INK, "rm")
    step = (width - left - 8) / len(means)
    half = min(0.26 * step, 40)
    for arm, mean in enumerate(means):
        x, is_chosen = left + (arm + 0.5) * step, action is not None and arm == int(action)
        bottom, top = sorted((level(0.0), level(float(mean))))
        color = ORANGE if is_chosen else BLUE
        box = [(x - half, bottom), (x + half, bottom), (x + half, top), (x - half, top)]
        canvas.polygon(box, color)
        beside = top + 9 if mean >= 0 else bottom - 9
        canvas.text((x, beside), number(round(float(mean), 2)), 11)
        canvas.text((x, 14), str(arm) if step < 60 else f"arm {arm}", 12, color)
        if is_chosen and reward is not None:
            y = level(float(reward))
            canvas.line([(x - half - 6, y), (x + half + 6, y)], 3, GREEN)
            if step > 90:
                text = f"reward {number(round(float(reward), 3))}"
                canvas.text((x + half + 12, y), text, 11, GREEN, "lm")
    return canvas.frame()


def _umbrella(canvas: Canvas, hand: Point) -> None:
    x, y = hand
    canvas.line([(x, y), (x, y + 34)], 3, INK)
    top = [(x + 30 * math.cos(a), y + 30 + 22 * math.sin(a)) for a in np.linspace(0, math.pi, 30)]
    canvas.polygon(top, ORANGE)


def _umbrella_chain(scene: Scene) -> np.ndarray:
    """Draws a walk to a place where it rains or not, with or without an umbrella."""
    has_umbrella, time_left = int(scene.state.has_umbrella), float(np.ravel(scene.obs)[2])
    rains, (width, height) = int(scene.state.need_umbrella), (480, 220)
    canvas = Canvas((width, height), 0, 0, width)
    start, end = 50.0, 390.0
    canvas.line([(20, 40), (460, 40)], 3, FAINT)
    canvas.text((start, 24), "start", 11)
    canvas.text((end + 30, 24), "end", 11)
    cloud = (end + 30, 170.0)
    if rains:
        for dx, dy, radius in ((-24, -6, 16), (0, 4, 22), (24, -6, 16)):
            canvas.disc((cloud[0] + dx, cloud[1] + dy), radius, RAIN)
        for dx in (-26, -9, 8, 25):
            canvas.line([(cloud[0] + dx, 142), (cloud[0] + dx - 6, 122)], 3, RAIN)
    else:
        canvas.disc(cloud, 24, SUN)
    x = start + (end + 30 - start) * min(max(1 - time_left, 0.0), 1.0)
    for foot in (-8, 8):
        canvas.line([(x, 66), (x + foot, 42)], 5, BLUE)
    canvas.line([(x, 66), (x, 92)], 9, BLUE)
    canvas.disc((x, 106), 10, BLUE)
    if has_umbrella:
        canvas.line([(x, 86), (x + 14, 80)], 4, BLUE)
        _umbrella(canvas, (x + 14, 80))
    need = "it rains at the end" if rains else "no rain at the end"
    has = "with umbrella" if has_umbrella else "without umbrella"
    canvas.text((12, height - 14), f"{need} · {has} · only the first action counts", 12, INK, "lm")
    return canvas.frame()


RENDERERS: dict[str, Callable[[Scene], np.ndarray]] = {
    "PointRobot-misc": _point_robot,
    "Reacher-misc": _reacher,
    "Swimmer-misc": _swimmer,
    "BernoulliBandit-misc": lambda scene: _bandit(scene, scene.state.reward_probs),
    "GaussianBandit-misc": lambda scene: _bandit(scene, [0.0, float(scene.state.mu)], 0.5),
    "SimpleBandit-bsuite": lambda scene: _bandit(scene, scene.state.rewards),
    "UmbrellaChain-bsuite": _umbrella_chain,
}
