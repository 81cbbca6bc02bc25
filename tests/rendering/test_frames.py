"""Pictures are where they should be, of the right form, and of every kind of observation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rljax import envs
from rljax.rendering import classic_control, frames
from rljax.rendering.frames import Scene
from rljax.types import Env, EnvSpec, Step


def scene(*obs, **state):
    fields = NamedTuple("State", [(name, float) for name in state])
    return Scene(fields(**state) if state else None, np.array(obs, np.float32))


def place(picture, color):
    """The mean `(row, column)` of the pixels of a color, as fractions of the picture."""
    rows, columns = np.nonzero((np.abs(picture.astype(int) - color) < 12).all(axis=-1))
    assert len(rows) > 20
    return rows.mean() / picture.shape[0], columns.mean() / picture.shape[1]


def one(env_id, *obs, **state):
    (picture,) = frames.draw_frames(env_id, [scene(*obs, **state)])
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    return picture


def test_a_cart_stands_where_it_is_and_its_pole_leans_as_it_does():
    left, right = (one("CartPole-v1", x, 0, 0, 0) for x in (-1.2, 1.2))
    assert (
        place(left, classic_control.BLUE)[1] < 0.35 < 0.65 < place(right, classic_control.BLUE)[1]
    )
    leaning = one("gymnax/CartPole-v1", 0, 0, 0.2, 0)  # positive: to the right
    assert (
        place(leaning, classic_control.ORANGE)[1] > 0.51 > place(leaning, classic_control.BLUE)[1]
    )
    assert place(leaning, classic_control.ORANGE)[0] < place(leaning, classic_control.BLUE)[0]


def test_a_pendulum_turns_as_it_does():
    up, down, left = (one("Pendulum-v1", c, s, 0) for c, s in ((1, 0), (-1, 0), (0, 1)))
    assert place(up, classic_control.ORANGE)[0] < 0.4
    assert place(down, classic_control.ORANGE)[0] > 0.6
    assert place(left, classic_control.ORANGE)[1] < 0.4
    pushed = one("Pendulum-v1", -1, 0, 0, last_u=2.0)  # counterclockwise: begins to the left
    assert place(pushed, classic_control.BLUE)[1] < 0.5
    assert not (up == classic_control.BLUE).all(axis=-1).any()


@pytest.mark.parametrize("env_id", ["MountainCar-v0", "MountainCarContinuous-v0"])
def test_a_car_is_on_its_hill(env_id):
    valley, hill = (place(one(env_id, x, 0), classic_control.BLUE) for x in (-0.52, 0.4))
    assert valley[0] > hill[0] + 0.3
    assert hill[1] > valley[1] + 0.3
    assert place(one(env_id, 0, 0), classic_control.GREEN)[0] < 0.2


def test_an_acrobot_swings_as_it_does():
    hanging = one("Acrobot-v1", 1, 0, 1, 0, 0, 0)
    assert place(hanging, classic_control.BLUE)[0] < place(hanging, classic_control.ORANGE)[0]
    folded = one("Acrobot-v1", 0, 1, 0, 1, 0, 0)  # first link to the right, second one up
    assert place(folded, classic_control.BLUE)[1] > 0.55
    assert place(folded, classic_control.ORANGE)[1] > 0.65
    assert place(folded, classic_control.ORANGE)[0] < place(folded, classic_control.BLUE)[0]


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
    """The observation of Breakout that is `BREAKOUT` as text."""
    obs = np.zeros((10, 10, 4), np.float32)
    obs[9, 4, 0] = obs[5, 2, 1] = obs[4, 1, 2] = 1
    obs[1:4, :, 3] = 1
    return Scene(None, obs)


def test_a_game_as_text():
    assert frames.text("Breakout-MinAtar", breakout()) == BREAKOUT
    assert frames.text("gymnax/Breakout-MinAtar", breakout()) == BREAKOUT
    assert frames.text("CartPole-v1", scene(0, 0, 0, 0)) is None


def test_a_game_as_cells():
    scene = breakout()
    (picture,) = frames.draw_frames("Breakout-MinAtar", [scene])
    assert picture.shape == (320, 320, 3)
    centers = picture[16::32, 16::32]
    for channel in range(4):
        where = scene.obs[..., channel] > 0
        np.testing.assert_array_equal(
            centers[where], np.broadcast_to(frames.CHANNELS[channel], (where.sum(), 3))
        )
    assert (centers[scene.obs.sum(-1) == 0] == frames.NIGHT).all()


def test_the_first_channel_that_is_on_is_shown():
    obs = np.zeros((2, 3, 14))
    obs[0, 0, [1, 3]] = obs[1, 2, 13] = 1
    assert frames.text("Mine", Scene(None, obs)).split("\n")[1:3] == ["|o  |", "|  ~|"]


def test_catch_tells_its_ball_from_its_paddle():
    obs = np.zeros((3, 4))
    obs[2, 1] = obs[2, 3] = 1
    caught = scene(*obs, paddle_x=3, paddle_y=2)
    assert frames.text("Catch-bsuite", caught).split("\n")[1:4] == ["|    |", "|    |", "| o =|"]


@pytest.mark.parametrize(
    ("shape", "dtype", "top"),
    [((8, 8, 3), np.uint8, 255), ((8, 6), np.float32, 0.7), ((8, 8, 1), np.float32, 3)],
)
def test_pictures_are_enlarged_as_they_are(shape, dtype, top):
    obs = np.zeros(shape, dtype)
    obs[2, 4] = top
    obs[3, 4] = top / 2
    (picture,) = frames.draw_frames("Mine", [Scene(None, obs)])
    assert picture.shape == (320, 40 * shape[1], 3)
    assert picture[80:120, 160:200].min() == 255
    assert 120 < picture[130, 180].mean() < 130
    assert picture.sum(dtype=int) < 1.6 * 40 * 40 * 3 * 255
    assert frames.text("Mine", Scene(None, obs)) is None


def test_channels_that_are_not_just_on_or_off_show_their_largest():
    obs = np.zeros((4, 4, 5))
    obs[1, 1] = 0.1, 0.2, 0.7, 0, 0
    assert frames.text("Mine", Scene(None, obs)).split("\n")[2] == "| .  |"


def test_vectors_are_bars_against_their_largest():
    scenes = [scene(t / 2, -t / 4) for t in range(3)]
    first, middle, last = frames.draw_frames("Mine", scenes)
    assert first.shape == middle.shape == last.shape == (240, 480, 3)

    def heights(picture):
        return [(picture == color).all(axis=-1).any(axis=1).sum() for color in BARS]

    assert heights(first) == [0, 0]
    up, down = heights(last)
    assert abs(up - down) <= 2
    assert up > 80
    assert abs(heights(middle)[0] - up / 2) < 8
    assert frames.text("Mine", scenes[0]) is None


BARS = (classic_control.BLUE, classic_control.ORANGE)


@pytest.mark.parametrize(
    "obs", [np.float32(3), np.int32(2), np.ones((1, 1)), np.ones((2, 2, 2, 2))]
)
def test_every_other_observation_has_a_picture(obs):
    (picture,) = frames.draw_frames("Mine", [Scene(None, obs)])
    assert picture.shape == (240, 480, 3)


def test_scenes_are_dug_out_of_wrappers_and_batches():
    def reset(key):
        return {"key": key, "x": jnp.float32(0)}, jnp.zeros(2)

    def step(state, action, key):
        x = state["x"] + action
        obs = jnp.stack([x, 0.0])
        return state | {"x": x}, Step(obs, x, jnp.bool(False), jnp.bool(False), obs)

    env = envs.time_limit(Env(EnvSpec((2,), num_actions=2), reset, step), 9)
    env = envs.record_episodes(envs.build(envs.auto_reset(env), 2))
    first, _ = env.reset(jax.random.key(0))

    def once(state, action):
        state, step = env.step(state, action, jax.random.key(0))
        return state, (state, step.obs)

    _, (states, obs) = jax.lax.scan(once, first, jnp.array([[0, 1], [0, 1], [1, 1]]))
    for copy, expected in ((0, [0, 0, 1]), (1, [1, 2, 3])):
        scenes = frames.scenes(states, obs, copy)
        assert [float(scene.state["x"]) for scene in scenes] == expected
        assert [float(scene.obs[0]) for scene in scenes] == expected
    alone = frames.scenes(jax.tree.map(lambda x: x[:, 1], states), (obs[:, 1], "memory"))
    assert [float(scene.state["x"]) for scene in alone] == [1, 2, 3]
    assert len(frames.draw_frames("Env", alone)) == 3


def test_a_gif_holds_its_frames(tmp_path):
    pictures = [one("CartPole-v1", x, 0, 0.1, 0) for x in (-1, 0, 1)]
    frames.write_gif(pictures, tmp_path / "a.gif", fps=20)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (3, (480, 300), 50)
        for i, picture in enumerate(pictures):
            gif.seek(i)
            read = np.asarray(gif.convert("RGB")).astype(int)
            assert np.abs(read - picture).mean() < 2
    assert frames.draw_frames("CartPole-v1", []) == frames.draw_frames("Mine", []) == []
    assert (frames.frame_rate("gymnax/CartPole-v1"), frames.frame_rate("Mine")) == (30, 10)


@pytest.mark.parametrize(
    ("count", "name", "fps", "message"),
    [
        (0, "a.gif", 30, "there are no frames"),
        (1, "a.mp4", 30, "a.mp4, but frames are written as a GIF"),
        (1, "a.gif", 0, "`fps` is 0, but it must be above 0 and at most 50."),
        (1, "a.gif", 60, "`fps` is 60, but it must be above 0 and at most 50."),
    ],
)
def test_what_no_gif_can_be_made_of(tmp_path, count, name, fps, message):
    with pytest.raises(ValueError, match=message):
        frames.write_gif([np.zeros((4, 4, 3), np.uint8)] * count, tmp_path / name, fps)
