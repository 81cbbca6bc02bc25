"""Frames of every environment of gymnax; mazes, robots and bandits at their positions."""

from types import SimpleNamespace as State

import numpy as np
import pytest
from random_episodes import random_scenes

from rljax import envs
from rljax.rendering import frames
from rljax.rendering.canvas import BLUE, GREEN, INK, ORANGE
from rljax.rendering.gymnax_tasks import maze_text
from rljax.rendering.scene import Scene

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.mark.parametrize("env_id", envs.environment_ids("gymnax"))
def test_every_environment_has_frames_that_change(env_id):
    scenes = random_scenes(env_id)
    drawn = frames.draw_frames(env_id, scenes)
    assert len(drawn) == len(scenes) > 1
    assert len({frame.shape for frame in drawn}) == 1
    for frame in drawn:
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    assert len({frame.tobytes() for frame in drawn}) == len(drawn)


def draw(name, obs=None, action=None, reward=None, **state):
    (frame,) = frames.draw_frames(name, [Scene(State(**state), obs, None, action, reward)])
    return frame


def center(frame, color):
    """Returns the mean `(x, y)` of the pixels of a color, from the left and from the bottom."""
    rows, columns = np.nonzero((np.abs(frame.astype(int) - color) < 12).all(axis=-1))
    assert len(rows) > 10
    return columns.mean(), frame.shape[0] - rows.mean()


def test_mazes_as_text():
    rooms = maze_text("FourRooms-misc", {})
    rows = rooms(State(pos=np.array([8, 2]), goal=np.array([1, 3]))).split("\n")
    assert (rows[0], rows[1], rows[8]) == ("#############", "#--G--#-----#", "#-o---#-----#")
    lake = maze_text("FrozenLake-misc", {"map_name": "4x4", "max_episode_steps": 5})
    assert lake(State(position=np.int32(6))) == "----\n-XoX\n---X\nX--G"
    meta = maze_text("MetaMaze-misc", {"maze_size": 5})
    rows = meta(State(pos=np.array([1, 1]), goal=np.array([3, 3]))).split("\n")
    assert len(rows) == 7 and rows[1] == "#o----#" and rows[3] == "#--G--#"
    assert maze_text("Swimmer-misc", {}) is None


def test_parameters_of_mazes_reach_the_text():
    lake = maze_text("FrozenLake-misc", {"map_name": "8x8"})
    assert lake(State(position=np.int32(0))).startswith("o-------\n--------\n---X----")


def test_point_robot_and_goal_are_at_their_positions():
    frame = draw("PointRobot-misc", pos=np.array([-0.5, 0.5]), goal=np.array([1.0, 0.0]),
        goals_reached=0,
    )  # fmt: skip
    robot, goal = center(frame, BLUE), center(frame, GREEN)
    np.testing.assert_allclose(np.subtract(goal, robot), [1.5 * 149, -0.5 * 149], atol=3)
    outside = draw("PointRobot-misc", pos=np.array([-9.0, 0.5]), goal=np.array([1.0, 0.0]),
        goals_reached=0,
    )  # fmt: skip
    assert center(outside, BLUE)[0] < 60
    assert outside.shape == frame.shape


def test_reacher_links_are_at_their_angles():
    frame = draw("Reacher-misc", angles=np.array([0, np.pi / 2]), goal_xy=np.array([-1.0, -1.0]))
    (x1, y1), (x2, y2) = center(frame, BLUE), center(frame, ORANGE)
    unit = 360 / 4.8
    np.testing.assert_allclose((x2 - x1, y2 - y1), (unit / 2, unit / 2), atol=5)
    np.testing.assert_allclose(center(frame, GREEN), (180 - unit, 180 - unit), atol=3)


def test_swimmer_goal_and_urchins_are_at_their_positions():
    frame = draw(
        "Swimmer-misc", xy=np.array([0.5, 0.0]), xy_vel=np.zeros(2), goal_xy=np.array([0.0, 0.5]),
        urchin_xys=np.array([[-0.5, 0.0]]),
    )  # fmt: skip
    np.testing.assert_allclose(center(frame, BLUE), (240, 180), atol=3)
    np.testing.assert_allclose(center(frame, GREEN), (180, 240), atol=3)
    np.testing.assert_allclose(center(frame, INK), (120, 180), atol=3)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("SimpleBandit-bsuite", {"rewards": np.linspace(0.2, 1, 11)}),
        ("BernoulliBandit-misc", {"reward_probs": np.array([0.1, 0.9])}),
        ("GaussianBandit-misc", {"mu": -0.8}),
    ],
)
def test_the_chosen_arm_of_a_bandit_is_marked(name, state):
    plain = draw(name, **state)
    assert not (plain[30:] == ORANGE).all(axis=-1).any()
    first, second = (draw(name, action=np.int32(i), reward=0.3, **state) for i in (0, 1))
    assert center(first, ORANGE)[0] < center(second, ORANGE)[0]
    assert (first == GREEN).all(axis=-1).any()
    assert first.shape[0] == plain.shape[0] + 24  # the caption


def test_the_walk_with_an_umbrella():
    def walk(time_left, has=0, need=0):
        obs = np.float32([need, has, time_left])
        return draw("UmbrellaChain-bsuite", obs, has_umbrella=has, need_umbrella=need)

    start, end = walk(1.0), walk(0.1)
    assert center(start, BLUE)[0] + 250 < center(end, BLUE)[0]
    assert not (start == ORANGE).all(axis=-1).any()
    assert (walk(1.0, has=1) == ORANGE).all(axis=-1).any()
    assert (walk(1.0, need=1) != start).any()


def test_hidden_velocities_do_not_change_the_picture():
    full = frames.draw_frames("CartPole-v1", [Scene(None, np.float32([0.3, 1, 0.1, 2]))])
    partial = frames.draw_frames("partial/CartPole-v1", [Scene(None, np.float32([0.3, 0.1]))])
    np.testing.assert_array_equal(full, partial)
