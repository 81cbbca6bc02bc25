"""Frames: positions, shapes and colors, for every kind of observation; text; GIFs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rljax import envs
from rljax.rendering import cells, frames
from rljax.rendering.canvas import BLUE, GREEN, ORANGE
from rljax.rendering.frames import Scene
from rljax.types import Env, EnvSpec, RecurrentObs, Step, sample_one


def scene(*obs, **state):
    fields = NamedTuple("State", [(name, float) for name in state])
    return Scene(fields(**state) if state else None, np.array(obs, np.float32))


def center(frame, color):
    """Returns the mean `(row, column)` of the pixels of a color, as fractions of the frame."""
    rows, columns = np.nonzero((np.abs(frame.astype(int) - color) < 12).all(axis=-1))
    assert len(rows) > 20
    return rows.mean() / frame.shape[0], columns.mean() / frame.shape[1]


def draw(env_id, *obs, **state):
    (frame,) = frames.draw_frames(env_id, [scene(*obs, **state)])
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.shape[2] == 3
    return frame


def test_cart_and_pole_are_at_their_position_and_angle():
    left, right = (draw("CartPole-v1", x, 0, 0, 0) for x in (-1.2, 1.2))
    assert center(left, BLUE)[1] < 0.35 < 0.65 < center(right, BLUE)[1]
    leaning = draw("gymnax/CartPole-v1", 0, 0, 0.2, 0)  # positive: to the right
    assert center(leaning, ORANGE)[1] > 0.51 > center(leaning, BLUE)[1]
    assert center(leaning, ORANGE)[0] < center(leaning, BLUE)[0]


def test_pendulum_is_at_its_angle_and_shows_the_torque():
    up, down, left = (draw("Pendulum-v1", c, s, 0) for c, s in ((1, 0), (-1, 0), (0, 1)))
    assert center(up, ORANGE)[0] < 0.4
    assert center(down, ORANGE)[0] > 0.6
    assert center(left, ORANGE)[1] < 0.4
    pushed = draw(
        "Pendulum-v1", -1, 0, 0, last_u=2.0
    )  # counterclockwise: the arrow starts to the left
    assert center(pushed, BLUE)[1] < 0.5
    assert not (up == BLUE).all(axis=-1).any()


@pytest.mark.parametrize("env_id", ["MountainCar-v0", "MountainCarContinuous-v0"])
def test_car_is_on_its_hill(env_id):
    valley, hill = (center(draw(env_id, x, 0), BLUE) for x in (-0.52, 0.4))
    assert valley[0] > hill[0] + 0.3
    assert hill[1] > valley[1] + 0.3
    assert center(draw(env_id, 0, 0), GREEN)[0] < 0.2


def test_acrobot_links_are_at_their_angles():
    hanging = draw("Acrobot-v1", 1, 0, 1, 0, 0, 0)
    assert center(hanging, BLUE)[0] < center(hanging, ORANGE)[0]
    folded = draw("Acrobot-v1", 0, 1, 0, 1, 0, 0)  # first link to the right, second one up
    assert center(folded, BLUE)[1] > 0.55
    assert center(folded, ORANGE)[1] > 0.65
    assert center(folded, ORANGE)[0] < center(folded, BLUE)[0]


BREAKOUT = """\
+----------+
|          |
|##########|
|##########|
|##########|
| .        |
|  o       |
|          |
|          |
|          |
|    =     |
+----------+"""


def breakout():
    """Returns the scene whose text is `BREAKOUT`."""
    obs = np.zeros((10, 10, 4), np.float32)
    obs[9, 4, 0] = obs[5, 2, 1] = obs[4, 1, 2] = 1
    obs[1:4, :, 3] = 1
    return Scene(None, obs)


def test_grid_observations_as_text():
    assert frames.text("Breakout-MinAtar", breakout()) == BREAKOUT
    assert frames.text("gymnax/Breakout-MinAtar", breakout()) == BREAKOUT
    assert frames.text("CartPole-v1", scene(0, 0, 0, 0)) is None


def test_grid_observations_as_cells():
    scene = breakout()
    (frame,) = frames.draw_frames("Breakout-MinAtar", [scene])
    assert frame.shape == (320, 320, 3)
    centers = frame[16::32, 16::32]
    for channel in range(4):
        is_on = scene.obs[..., channel] > 0
        np.testing.assert_array_equal(
            centers[is_on], np.broadcast_to(cells.CHANNEL_COLORS[channel], (is_on.sum(), 3))
        )
    assert (centers[scene.obs.sum(-1) == 0] == cells.EMPTY).all()


def test_the_first_channel_that_is_on_is_shown():
    obs = np.zeros((2, 3, 14))
    obs[0, 0, [1, 3]] = obs[1, 2, 13] = 1
    assert frames.text("Mine", Scene(None, obs)).split("\n")[1:3] == ["|o  |", "|  ~|"]


def test_ball_and_paddle_of_catch_differ():
    obs = np.zeros((3, 4))
    obs[2, 1] = obs[2, 3] = 1
    caught = scene(*obs, paddle_x=3, paddle_y=2)
    assert frames.text("Catch-bsuite", caught).split("\n")[1:4] == ["|    |", "|    |", "| o =|"]


@pytest.mark.parametrize(
    ("shape", "dtype", "largest"),
    [((8, 8, 3), np.uint8, 255), ((8, 6), np.float32, 0.7), ((8, 8, 1), np.float32, 3)],
)
def test_images_are_enlarged(shape, dtype, largest):
    obs = np.zeros(shape, dtype)
    obs[2, 4] = largest
    obs[3, 4] = largest / 2
    (frame,) = frames.draw_frames("Mine", [Scene(None, obs)])
    assert frame.shape == (320, 40 * shape[1], 3)
    assert frame[80:120, 160:200].min() == 255
    assert 120 < frame[130, 180].mean() < 130
    assert frame.sum(dtype=int) < 1.6 * 40 * 40 * 3 * 255
    assert frames.text("Mine", Scene(None, obs)) is None


def test_stacked_frames_show_the_last():
    obs = np.zeros((84, 84, 4), np.uint8)
    obs[:42, :, 0], obs[42:, :, 3] = 200, 100
    for image in (obs, np.zeros_like(obs), np.ones_like(obs)):  # also an image of one color
        (frame,) = frames.draw_frames("atari/Pong", [Scene(None, image)])
        assert frame.shape == (252, 252, 3)
        np.testing.assert_array_equal(frame[::3, ::3], np.repeat(image[..., 3:], 3, axis=-1))


def test_of_a_tree_the_largest_image_is_drawn():
    small, large = np.zeros((3, 3, 2)), np.zeros((5, 5, 2))
    large[1, 1, 0] = 1
    tree = {"a": np.ones(200), "b": small, "c": large, "action_mask": np.ones(4, bool)}
    (frame,) = frames.draw_frames("Mine", [Scene(None, tree)])
    assert frame.shape == (320, 320, 3)
    assert (frame[96, 96] == cells.CHANNEL_COLORS[0]).all()
    assert "@" in frames.text("Mine", Scene(None, tree))
    del tree["b"], tree["c"]
    assert frames.draw_frames("Mine", [Scene(None, tree)])[0].shape == (280, 480, 3)  # bars


def test_real_valued_channels_show_the_largest():
    obs = np.zeros((4, 4, 5))
    obs[1, 1] = 0.1, 0.2, 0.7, 0, 0
    assert frames.text("Mine", Scene(None, obs)).split("\n")[2] == "| .  |"


def test_vectors_are_bars_relative_to_their_largest_values():
    scenes = [scene(t / 2, -t / 4) for t in range(3)]
    first, middle, last = frames.draw_frames("Mine", scenes)
    assert first.shape == middle.shape == last.shape == (240, 480, 3)

    def heights(frame):
        return [(frame == color).all(axis=-1).any(axis=1).sum() for color in (BLUE, ORANGE)]

    assert heights(first) == [0, 0]
    up, down = heights(last)
    assert abs(up - down) <= 2
    assert up > 75
    assert abs(heights(middle)[0] - up / 2) < 8
    assert frames.text("Mine", scenes[0]) is None


@pytest.mark.parametrize(
    "obs",
    [np.float32(3), np.int32(2), np.ones((1, 1)), np.ones((2, 2, 2, 2)), np.ones((9, 9, 9, 9))],
)
def test_observations_of_any_shape_have_a_frame(obs):
    (frame,) = frames.draw_frames("Mine", [Scene(None, obs)])
    assert frame.shape == (240, 480, 3)


def test_scenes_of_wrapped_and_batched_environments():
    def reset(key):
        return {"key": key, "x": jnp.float32(0)}, jnp.zeros(2)

    def step(state, action, key):
        x = state["x"] + action
        obs = jnp.stack([x, 0.0])
        return state | {"x": x}, Step(obs, x, jnp.bool(False), jnp.bool(False), obs)

    env = envs.time_limit(Env(EnvSpec((2,), num_actions=2), reset, step), 9)
    env = envs.record_episodes(envs.build(envs.auto_reset(env), 2))
    first, _ = env.reset(jax.random.key(0))
    noise = sample_one(env.sample_noise, jax.random.key(0))

    def env_step(state, action):
        state, step = env.step(state, action, noise)
        return state, (state, step.obs)

    _, (states, obs) = jax.lax.scan(env_step, first, jnp.array([[0, 1], [0, 1], [1, 1]]))
    for copy, expected in ((0, [0, 0, 1]), (1, [1, 2, 3])):
        scenes = frames.scenes(states, obs, copy)
        assert [float(scene.state["x"]) for scene in scenes] == expected
        assert [float(scene.obs[0]) for scene in scenes] == expected
    states = jax.tree.map(lambda x: x[:, 1], states)
    single = frames.scenes(states, RecurrentObs(obs[:, 1], jnp.zeros((3, 8))))
    assert [float(scene.state["x"]) for scene in single] == [1, 2, 3]
    assert len(frames.draw_frames("Env", single)) == 3


def test_a_gif_contains_its_frames(tmp_path):
    written = [draw("CartPole-v1", x, 0, 0.1, 0) for x in (-1, 0, 1)]
    frames.write_gif(written, tmp_path / "a.gif", fps=20)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (3, (480, 300), 50)
        for i, frame in enumerate(written):
            gif.seek(i)
            read = np.asarray(gif.convert("RGB")).astype(int)
            assert np.abs(read - frame).mean() < 2
    assert frames.draw_frames("CartPole-v1", []) == frames.draw_frames("Mine", []) == []
    assert frames.renderer_of("gymnax/CartPole-v1").fps == 30
    assert frames.renderer_of("Mine").fps == 10


@pytest.mark.parametrize(
    ("count", "name", "fps", "message"),
    [
        (0, "a.gif", 30, "`frames` is empty, but a GIF needs at least one frame."),
        (1, "a.mp4", 30, "a.mp4, but it must end in .gif."),
        (1, "a.gif", 0, "`fps` is 0, but it must be above 0 and at most 50."),
        (1, "a.gif", 60, "`fps` is 60, but it must be above 0 and at most 50."),
    ],
)
def test_wrong_arguments_of_write_gif(tmp_path, count, name, fps, message):
    with pytest.raises(ValueError, match=message):
        frames.write_gif([np.zeros((4, 4, 3), np.uint8)] * count, tmp_path / name, fps)
