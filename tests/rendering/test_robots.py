"""Frames of the arms and of the car: what is drawn, where, and in which color."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import rljax
from rljax.envs import arms, car
from rljax.envs.resets import Persistent
from rljax.rendering import frames, watch
from rljax.rendering.canvas import BLUE, FAINT, GREEN, INK, ORANGE, TILE
from rljax.rendering.frames import Scene

pytestmark = pytest.mark.usefixtures("quick_compiles")


def draw(env_id, state, obs=None):
    (frame,) = frames.draw_frames(env_id, [Scene(state, obs, "text")])
    assert (frame.shape, frame.dtype) == ((400, 400, 3), np.uint8)
    return frame


def pixels(frame, color):
    """Returns the coordinates `[N, 2]` of the pixels of a color: x to the right, y upwards."""
    rows, columns = np.nonzero((np.abs(frame.astype(int) - color) < 8).all(axis=-1))
    return np.stack([columns + 0.5, 400 - rows - 0.5], axis=1)


def draw_arm(name, angles, goal, steps_at_goal=0):
    angles = np.float32(angles)
    angles = Persistent(angles) if name == "Arm-hard" else angles
    return draw(f"rljax/{name}", arms.ArmState(angles, np.float32(goal), np.int32(steps_at_goal)))


def in_plane(points):
    """Converts pixels of an arm to coordinates of its plane, which has a margin of 20."""
    return points * 440 / 400 - 20


@pytest.mark.parametrize(
    ("name", "angles", "half_side"),
    [("Arm-easy", (0, np.pi / 2), 15), ("Arm-hard", (0, np.pi / 2), 15),
     ("TwoJointArm", (0, np.pi / 2), 20)],
)  # fmt: skip
def test_links_and_goal_are_at_their_positions(name, angles, half_side):
    frame = draw_arm(name, angles, (120, 80))
    links = in_plane(pixels(frame, BLUE))
    for point in ((250, 200), (300, 250), (300, 285)):
        assert np.linalg.norm(links - point, axis=1).min() < 2
    assert links[:, 0].max() < 315 and links[:, 1].min() > 185 and links[:, 1].max() < 305
    joints = in_plane(pixels(frame, INK))  # the base and the tip
    for point in ((210, 200), (300, 300)):
        assert np.linalg.norm(joints - point, axis=1).min() < 2
    goal = in_plane(pixels(frame, ORANGE))
    np.testing.assert_allclose(goal.min(axis=0), (120 - half_side, 80 - half_side), atol=2)
    np.testing.assert_allclose(goal.max(axis=0), (120 + half_side, 80 + half_side), atol=2)
    assert not len(pixels(frame, GREEN))
    disc = np.linalg.norm(in_plane(pixels(frame, TILE)) - 200, axis=1)
    assert 195 < np.quantile(disc, 0.999) < 202


def test_the_second_angle_is_relative_only_in_the_two_joint_arm():
    angles, goal = (np.pi / 2, np.pi / 2), (380, 20)
    tip = {name: in_plane(pixels(draw_arm(name, angles, goal), BLUE)) for name in
           ("Arm-easy", "TwoJointArm")}  # fmt: skip
    assert tip["Arm-easy"][:, 1].max() > 390 and tip["Arm-easy"][:, 0].min() > 190
    assert tip["TwoJointArm"][:, 1].max() < 310 and tip["TwoJointArm"][:, 0].min() < 110


@pytest.mark.parametrize("name", ["Arm-easy", "Arm-hard", "TwoJointArm"])
def test_the_goal_is_green_while_it_is_held(name):
    frame = draw_arm(name, (0, np.pi / 2), (300, 300), steps_at_goal=7)
    assert not len(pixels(frame, ORANGE))
    goal = in_plane(pixels(frame, GREEN))
    np.testing.assert_allclose((goal.min(axis=0) + goal.max(axis=0)) / 2, (300, 300), atol=2)


def draw_car(position, heading):
    state = car.CarState(jnp.float32(position), jnp.float32(heading))
    return draw("rljax/Car2D", state, np.asarray(car.sensor_distances(state)) / 150)


def in_window(points):
    """Converts pixels of the car to coordinates of its window, which has a margin of 10."""
    return points * 520 / 400 - 10


def test_car_obstacle_and_sensors_are_at_their_positions():
    frame = draw_car((450, 300), -np.pi / 2)
    body = in_window(pixels(frame, BLUE))
    np.testing.assert_allclose(body.min(axis=0), (440, 280), atol=2)
    np.testing.assert_allclose(body.max(axis=0), (460, 320), atol=2)
    dark = in_window(pixels(frame, INK))
    inside = dark[(np.abs(dark - 250) < 200).all(axis=1)]  # without the walls of the window
    np.testing.assert_allclose(inside.min(axis=0), (120, 120), atol=2)
    np.testing.assert_allclose(inside.max(axis=0), (380, 380), atol=2)
    np.testing.assert_allclose((dark.min(axis=0), dark.max(axis=0)), ((0, 0), (500, 500)), atol=4)
    ends = in_window(pixels(frame, GREEN))  # of the four rays that meet a wall
    for point in ((380, 300), (380, 230), (500, 300), (500, 250)):
        assert np.linalg.norm(ends - point, axis=1).min() < 6
    assert np.linalg.norm(ends - (450, 150), axis=1).min() > 50
    rays = in_window(pixels(frame, FAINT))
    np.testing.assert_allclose(rays[:, 1].min(), 150, atol=3)


def test_the_car_turns_with_its_heading_and_is_orange_after_a_collision():
    body = in_window(pixels(draw_car((200, 60), np.pi / 4), BLUE))
    along = (body - (200, 60)) @ (np.sqrt(0.5), np.sqrt(0.5))
    across = (body - (200, 60)) @ (-np.sqrt(0.5), np.sqrt(0.5))
    np.testing.assert_allclose((np.ptp(along), np.ptp(across)), (40, 20), atol=3)
    frame = draw_car((450, 15), -np.pi / 2)
    assert len(pixels(frame, ORANGE)) > 200 and not len(pixels(frame, BLUE))


def test_watch_writes_a_gif_and_prints_the_state(tmp_path, capsys, monkeypatch):
    rljax.train(
        "a2c", "rljax/Arm-hard", run_dir=tmp_path / "run", total_timesteps=32, num_envs=2,
        num_steps=4, hidden_sizes=(8,), num_reports=1, eval_episodes=0, progress=False,
        env_params={"max_episode_steps": 9},
    )  # fmt: skip
    delays = []  # of the player alone: training waits for a process that it starts
    monkeypatch.setattr(watch.time, "sleep", delays.append)
    path = watch.watch(tmp_path / "run", show_text=True)
    lines = capsys.readouterr().out.split("\n")
    texts = [line.rpartition("\x1b[J")[2] for line in lines if "steps at the goal" in line]
    assert len(texts) == 10 and texts[0].startswith("tip (")  # one before each step, and the last
    assert len({text.split("goal")[1].split("distance")[0] for text in texts}) == 1
    np.testing.assert_allclose(delays, 1 / 30)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size) == (10, (400, 424))
    assert not path.with_suffix(".png").exists()  # an arm has no value table
