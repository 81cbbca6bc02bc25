"""Frames of suites of environments, from random actions or from states made for the test."""

import importlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from random_episodes import random_scenes

from rljax.envs import is_installed
from rljax.rendering import frames, suites
from rljax.rendering.boards import GHOSTS, PLAYER, board_of_2048, maze_of_pac_man
from rljax.rendering.bodies import convex_hull, matrices
from rljax.rendering.canvas import FAINT
from rljax.rendering.scene import Scene

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.mark.filterwarnings("ignore")  # of the packages
@pytest.mark.parametrize(
    "env_id",
    ["xminigrid/MiniGrid-Empty-5x5", "navix/Navix-Empty-5x5-v0", "pgx/2048", "jumanji/Maze-v0",
     "jumanji/Snake-v1", "jumanji/Game2048-v1", "gymnasium/CartPole-v1", "atari/Breakout"],
)  # fmt: skip
def test_frames_of_suites_are_of_one_size_and_change(env_id):
    suite, name = frames.split_id(env_id)
    if not is_installed(suite):
        pytest.skip(f"{suite} is not installed")
    with jax.numpy_rank_promotion("allow"):
        scenes = random_scenes(env_id, 6)
        renderer = frames.renderer_of(env_id, scenes)
        drawn = frames.draw_frames(env_id, scenes, renderer=renderer)
    assert len(drawn) == len(scenes)
    assert {(frame.shape, frame.dtype.name) for frame in drawn} == {(drawn[0].shape, "uint8")}
    assert min(drawn[0].shape[:2]) >= 240
    assert len({frame[:-24].tobytes() for frame in drawn}) > 1


def test_every_maker_belongs_to_a_suite():
    for suite in suites.MAKERS:
        assert suite in importlib.import_module("rljax.envs").SUITES


def test_the_board_of_2048_has_its_tiles_in_rows():
    board = np.zeros(16, np.int32)
    board[3] = 11  # 2048, in the upper right corner
    frame = board_of_2048(Scene(SimpleNamespace(_board=board), None))
    assert frame.shape == (360, 360, 3)
    color = frame[30, 300].astype(int)
    assert np.abs(color - (231, 96, 52)).max() < 8
    assert (frame[300, 30] == (236, 234, 228)).all() and (frame[1, 1] == FAINT).all()


def test_the_maze_of_pac_man_shows_player_ghosts_and_pellets():
    grid = np.zeros((6, 8), np.int32)
    grid[2, 1:7] = 1
    state = SimpleNamespace(
        grid=grid, pellet_locations=np.array([[3, 2], [0, 0]]), frightened_state_time=0,
        power_up_locations=np.array([[4, 2]]), player_locations=SimpleNamespace(x=2, y=1),
        ghost_locations=np.array([[5, 2], [6, 2], [5, 2], [6, 2]]),
    )  # fmt: skip
    frame = maze_of_pac_man(Scene(state, None))
    assert frame.shape == (84, 112, 3)
    assert (frame[2 * 14 + 7, 14 + 7] == PLAYER).all()
    assert (frame[2 * 14 + 11, 5 * 14 + 7] == GHOSTS[2]).all()
    state.frightened_state_time = 3
    assert (maze_of_pac_man(Scene(state, None)) != frame).any()


def test_rotation_matrices_of_quaternions():
    half = np.sqrt(0.5)
    about_z = matrices(np.array([[half, 0, 0, half], [1, 0, 0, 0]]))
    np.testing.assert_allclose(about_z[0] @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(about_z[1], np.eye(3))


def test_convex_hull():
    hull = convex_hull([(0, 0), (1, 0), (0.5, 0.5), (1, 1), (0, 1), (0, 0)])
    assert hull == [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert convex_hull([(0, 0), (0, 0)]) == [(0, 0)]


MODEL = """
<mujoco><worldbody>
  <geom type="plane" size="1 1 1"/>
  <body name="torso" pos="0 0 1"><freejoint/>
    <geom type="capsule" fromto="-.3 0 0 .3 0 0" size=".1"/>
    <geom type="mesh" mesh="wedge"/><geom type="ellipsoid" size=".1 .2 .1"/>
    <body name="leg"><joint/><geom type="box" size=".1 .1 .2"/>
      <geom type="cylinder" size=".1 .2" group="3"/></body>
  </body>
  <body name="target" pos="1 0 0"><geom type="sphere" size=".1"/></body>
</worldbody>
<asset><mesh name="wedge" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1"/></asset></mujoco>
"""


def test_bodies_are_at_their_positions_and_the_camera_follows():
    mujoco = pytest.importorskip("mujoco")
    from rljax.rendering import bodies
    from rljax.rendering.canvas import BLUE, GREEN, ORANGE

    model = mujoco.MjModel.from_xml_string(MODEL)

    def pose(scene):
        position = np.array([[0, 0, 0], [scene.state, 0, 1], [scene.state, 0, 0.6], [1, 0, 0.0]])
        return bodies.Pose(position, np.tile(np.eye(3), (4, 1, 1)))

    def columns(frame, color):
        found = np.nonzero((np.abs(frame.astype(int) - color) < 8).all(axis=-1))
        assert len(found[0]) > 20
        return found[1].mean()

    def drawn(*positions):
        renderer = bodies._renderer(model, pose, 0.02)
        return renderer, renderer.draw([Scene(x, None) for x in positions])

    renderer, (left, right) = drawn(0.0, 0.5)  # a fixed camera
    assert renderer.fps == 30
    assert left.shape == right.shape == (bodies.HEIGHT, bodies.WIDTH, 3)
    assert columns(left, BLUE) + 30 < columns(right, BLUE)
    assert columns(left, GREEN) == columns(right, GREEN) > columns(right, ORANGE)
    _, (near, far) = drawn(0.0, 20.0)  # the camera follows
    assert (near != far).any()
    assert (near == BLUE).all(axis=-1).any() and (far == BLUE).all(axis=-1).any()
