"""Frames of simulated robots: the shapes of a MuJoCo model, projected from the side or from above.

The renderer of MuJoCo needs OpenGL, which is often missing on machines without a screen. These
frames need only the positions of the bodies.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rljax.rendering.canvas import BACKGROUND, BLUE, FAINT, GREEN, HILL, INK, ORANGE, Canvas
from rljax.rendering.scene import Renderer, Scene

WIDTH, HEIGHT = 480, 320
ELEVATION = np.deg2rad(12)  # of the camera at the side
PLANE, SPHERE, CAPSULE, ELLIPSOID, CYLINDER, BOX, MESH = 0, 2, 3, 4, 5, 6, 7
HIDDEN_GROUP = 3  # from this group on, shapes are for collisions only
STEPS_PER_SECOND = 30


class Pose(NamedTuple):
    """The positions `[bodies, 3]` and rotations `[bodies, 3, 3]` of all bodies at one step."""

    position: np.ndarray
    rotation: np.ndarray


def brax_renderer(name: str, params: Mapping[str, Any]) -> Renderer:
    """Returns the renderer of an environment of brax."""
    from brax import envs

    with warnings.catch_warnings():  # brax recommends MuJoCo Playground
        warnings.filterwarnings("ignore", "Brax System", UserWarning)
        backend = {key: params[key] for key in params if key == "backend"}
        env: Any = envs.get_environment(name, **backend)

    def pose(scene):
        x = scene.state.pipeline_state.x
        position, quaternion = np.asarray(x.pos, np.float64), np.asarray(x.rot, np.float64)
        world = np.zeros((1, 3)), np.eye(3)[None]
        return Pose(
            np.concatenate([world[0], position]), np.concatenate([world[1], matrices(quaternion)])
        )

    return _renderer(env.sys.mj_model, pose, float(env.dt))


def playground_renderer(name: str, params: Mapping[str, Any]) -> Renderer:
    """Returns the renderer of an environment of MuJoCo Playground."""
    from mujoco_playground import registry

    has_choice = "impl" in registry.get_default_config(name)  # the other physics needs a GPU
    env: Any = registry.load(name, config_overrides={"impl": "jax"} if has_choice else None)

    def pose(scene):
        data = scene.state.data
        return Pose(np.asarray(data.xpos, np.float64), matrices(np.asarray(data.xquat)))

    return _renderer(env.mj_model, pose, float(env.dt))


def matrices(quaternion: np.ndarray) -> np.ndarray:
    """Returns the rotation matrices `[N, 3, 3]` of unit quaternions `(w, x, y, z)`, `[N, 4]`."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, np.float64), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.moveaxis(np.array(rows), -1, 0)


class Shape(NamedTuple):
    """A shape of the model: points whose outline is drawn, swollen by a radius."""

    body: int
    points: np.ndarray  # [N, 3], in coordinates of the body
    radius: float
    color: tuple


class View(NamedTuple):
    """A parallel projection: axes of the picture in space, its center and its scale."""

    right: np.ndarray
    up: np.ndarray
    center: Callable[[np.ndarray], np.ndarray]  # points [N, 3] -> [2]
    width: float
    from_above: bool


def _renderer(model: Any, pose: Callable[[Scene], Pose], dt: float) -> Renderer:
    shapes = _shapes(model)

    def draw(scenes):
        poses = [pose(scene) for scene in scenes]
        view = _view(shapes, [_in_space(shapes, each) for each in poses])
        return [_draw(shapes, each, view) for each in poses]

    return Renderer(draw, (), int(np.clip(round(1 / dt), 10, STEPS_PER_SECOND)))


def _shapes(model: Any) -> list[Shape]:
    """Returns the shapes of a model that are not planes."""
    shapes, depth = [], _depths(model)
    groups = np.asarray(model.geom_group)
    for i in range(model.ngeom):
        kind, size = int(model.geom_type[i]), np.asarray(model.geom_size[i], np.float64)
        alone = (groups[model.geom_bodyid == model.geom_bodyid[i]] >= HIDDEN_GROUP).all()
        if (groups[i] >= HIDDEN_GROUP and not alone) or model.geom_rgba[i, 3] == 0:
            continue
        made = _outline(model, i, kind, size)
        if made is None:
            continue
        points, radius = made
        rotation = matrices(model.geom_quat[i][None])[0]
        body = int(model.geom_bodyid[i])
        names = f"{model.geom(i).name} {model.body(body).name}".lower()
        is_goal = "target" in names or "goal" in names
        color = GREEN if is_goal else INK if body == 0 else (BLUE, ORANGE)[depth[body] % 2]
        shapes.append(Shape(body, points @ rotation.T + model.geom_pos[i], radius, color))
    return shapes


def _depths(model: Any) -> list[int]:
    """Returns the number of bodies between each body and the world that have shapes."""
    depths = [0]
    for body in range(1, model.nbody):
        has_shapes = bool(model.body_geomnum[body])
        depths.append(depths[int(model.body_parentid[body])] + has_shapes)
    return [max(depth - 1, 0) for depth in depths]


def _outline(
    model: Any, geom: int, kind: int, size: np.ndarray
) -> tuple[np.ndarray, float] | None:  # fmt: skip
    """Returns points and a radius whose projections fill the outline of a shape."""
    if kind == SPHERE:
        return np.zeros((1, 3)), float(size[0])
    if kind == CAPSULE:
        return np.array([[0, 0, -size[1]], [0, 0, size[1]]]), float(size[0])
    corners = np.array(np.meshgrid(*[(-1.0, 1.0)] * 3)).reshape(3, 8).T
    if kind == BOX:
        return corners * size, 0.0
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if kind == CYLINDER:
        ends = [np.column_stack([circle * size[0], np.full(24, z)]) for z in (-size[1], size[1])]
        return np.concatenate(ends), 0.0
    if kind == ELLIPSOID:
        rings = [
            np.column_stack([circle * np.sin(a), np.full(24, np.cos(a))])
            for a in np.linspace(0, np.pi, 9)
        ]
        return np.concatenate(rings) * size, 0.0
    if kind == MESH:
        mesh = int(model.geom_dataid[geom])
        start, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        vertices = np.asarray(model.mesh_vert[start : start + count], np.float64)
        return vertices[:: max(1, count // 500)], 0.0
    return None


def _in_space(shapes: Sequence[Shape], pose: Pose) -> np.ndarray:
    """Returns the centers of all shapes, `[N, 3]`."""
    centers = np.array([shape.points.mean(axis=0) for shape in shapes])
    body = [shape.body for shape in shapes]
    return pose.position[body] + np.einsum("nij,nj->ni", pose.rotation[body], centers)


def _view(shapes: Sequence[Shape], centers: Sequence[np.ndarray]) -> View:
    """Chooses the side or from above, and a camera that stands still or follows the robot."""
    path = np.array(centers)  # [T, N, 3]
    moving = np.array([shape.body > 0 for shape in shapes])
    extent = max(
        (float(np.linalg.norm(shape.points, axis=1).max() + shape.radius) for shape in shapes),
        default=1.0,
    )
    moved = path[:, moving] if moving.any() else path
    spread = np.ptp(moved.reshape(-1, 3), axis=0)
    from_above = spread[2] < 0.12 * max(spread[0], spread[1])
    if not from_above and spread[1] > 3 * max(spread[0], 0.05):  # it moves in the y-z plane
        right = np.array([0.0, 1.0, 0.0])
        up = np.array([-np.sin(ELEVATION), 0.0, np.cos(ELEVATION)])
    else:
        right = np.array([1.0, 0.0, 0.0])
        up = np.array([0.0, np.sin(ELEVATION), np.cos(ELEVATION)])
    if from_above:
        up = np.array([0.0, 1.0, 0.0])
    axes = np.stack([right, up], axis=1)
    flat = moved @ axes  # [T, N, 2]
    size = np.ptp(flat, axis=1).max(axis=0) + 2 * extent  # of the robot
    whole = np.ptp(flat.reshape(-1, 2), axis=0) + 2 * extent  # of its path
    ratio = WIDTH / HEIGHT
    if whole[0] < 2 * size[0] and whole[1] < 2 * size[1]:
        middle = (flat.reshape(-1, 2).max(axis=0) + flat.reshape(-1, 2).min(axis=0)) / 2
        width = 1.15 * max(whole[0], whole[1] * ratio)
        return View(right, up, lambda points: middle, width, bool(from_above))
    width = 1.8 * max(size[0], size[1] * ratio)
    steady = None if from_above else flat[..., 1].mean()

    def follow(points):
        center = (points[moving] @ axes).mean(axis=0)
        return center if steady is None else np.array([center[0], steady])

    return View(right, up, follow, width, bool(from_above))


def _draw(shapes: Sequence[Shape], pose: Pose, view: View) -> np.ndarray:
    axes = np.stack([view.right, view.up], axis=1)
    center = view.center(_in_space(shapes, pose))
    height = view.width * HEIGHT / WIDTH
    left, bottom = center[0] - view.width / 2, center[1] - height / 2
    canvas = Canvas((WIDTH, HEIGHT), left, bottom, view.width)
    _draw_ground(canvas, view, left, bottom, height)
    toward = np.cross(view.right, view.up)  # from the scene to the camera
    items = []
    for shape in shapes:
        points = pose.position[shape.body] + shape.points @ pose.rotation[shape.body].T
        items.append((float((points @ toward).mean()), shape, points @ axes))
    thin = view.width / WIDTH
    for _, shape, flat in sorted(items, key=lambda item: item[0]):
        points = [(float(x), float(y)) for x, y in flat]
        if shape.radius:
            dark = tuple(int(0.75 * x) for x in shape.color)
            width = max(2 * shape.radius, 3 * thin)
            canvas.line([points[0], points[-1]], width + 2 * thin, dark)
            canvas.line([points[0], points[-1]], width, shape.color)
        elif len(hull := convex_hull(points)) > 2:
            canvas.polygon(hull, shape.color)
            canvas.line([*hull, hull[0]], 1.5 * thin, BACKGROUND)
    return canvas.frame()


def _draw_ground(canvas: Canvas, view: View, left: float, bottom: float, height: float) -> None:
    """Draws marks at whole multiples of a length, so that the motion of the robot is seen."""
    unit = view.width / WIDTH
    step = 10 ** np.floor(np.log10(view.width / 4))
    step = next(s * step for s in (1, 2, 5, 10) if view.width / (s * step) < 9)
    if view.from_above:
        for y in np.arange(np.ceil(bottom / step), (bottom + height) / step) * step:
            canvas.line([(left, y), (left + view.width, y)], unit, FAINT)
    else:
        ground = [(left, bottom), (left + view.width, bottom), (left + view.width, 0), (left, 0)]
        if bottom < 0:
            canvas.polygon(ground, HILL)
    for x in np.arange(np.ceil(left / step), (left + view.width) / step) * step:
        top = bottom + height if view.from_above else 0.0
        low = bottom if view.from_above else -8 * unit
        canvas.line([(x, low), (x, top)], unit, FAINT if view.from_above else INK)
        label = (float(x) + 4 * unit, max(low - 8 * unit, bottom + 8 * unit))
        canvas.text(label, f"{round(float(x), 6):g} m", 10, INK, "lm")


def convex_hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the corners of the convex hull of points in the plane, counterclockwise."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered

    def half(points):
        chain: list[tuple[float, float]] = []
        for p in points:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2:]
                if (bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax) > 0:
                    break
                chain.pop()
            chain.append(p)
        return chain[:-1]

    return half(ordered) + half(ordered[::-1])
