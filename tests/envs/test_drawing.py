"""Pictures are where they should be, of the right form, and of every kind of observation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rljax import envs
from rljax.envs import drawing, painters
from rljax.envs.drawing import Scene
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
    (picture,) = drawing.frames(env_id, [scene(*obs, **state)])
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    return picture


def test_a_cart_stands_where_it_is_and_its_pole_leans_as_it_does():
    left, right = (one("CartPole-v1", x, 0, 0, 0) for x in (-1.2, 1.2))
    assert place(left, painters.BLUE)[1] < 0.35 < 0.65 < place(right, painters.BLUE)[1]
    leaning = one("gymnax/CartPole-v1", 0, 0, 0.2, 0)  # positive: to the right
    assert place(leaning, painters.ORANGE)[1] > 0.51 > place(leaning, painters.BLUE)[1]
    assert place(leaning, painters.ORANGE)[0] < place(leaning, painters.BLUE)[0]


def test_a_pendulum_turns_as_it_does():
    up, down, left = (one("Pendulum-v1", c, s, 0) for c, s in ((1, 0), (-1, 0), (0, 1)))
    assert place(up, painters.ORANGE)[0] < 0.4
    assert place(down, painters.ORANGE)[0] > 0.6
    assert place(left, painters.ORANGE)[1] < 0.4
    pushed = one("Pendulum-v1", -1, 0, 0, last_u=2.0)  # counterclockwise: begins to the left
    assert place(pushed, painters.BLUE)[1] < 0.5
    assert not (up == painters.BLUE).all(axis=-1).any()


@pytest.mark.parametrize("env_id", ["MountainCar-v0", "MountainCarContinuous-v0"])
def test_a_car_is_on_its_hill(env_id):
    valley, hill = (place(one(env_id, x, 0), painters.BLUE) for x in (-0.52, 0.4))
    assert valley[0] > hill[0] + 0.3
    assert hill[1] > valley[1] + 0.3
    assert place(one(env_id, 0, 0), painters.GREEN)[0] < 0.2


def test_an_acrobot_swings_as_it_does():
    hanging = one("Acrobot-v1", 1, 0, 1, 0, 0, 0)
    assert place(hanging, painters.BLUE)[0] < place(hanging, painters.ORANGE)[0]
    folded = one("Acrobot-v1", 0, 1, 0, 1, 0, 0)  # first link to the right, second one up
    assert place(folded, painters.BLUE)[1] > 0.55
    assert place(folded, painters.ORANGE)[1] > 0.65
    assert place(folded, painters.ORANGE)[0] < place(folded, painters.BLUE)[0]


BREAKOUT = """\
+----------+
|          |
|##########|
|##########|
|##########|
|.         |
| o        |
|          |
|          |
|          |
|    =     |
+----------+"""


@pytest.fixture(scope="module")
def breakout():
    """Two games of Breakout side by side, two steps each, whatever they begin with."""
    with jax.numpy_rank_promotion("allow"):
        env = envs.record_episodes(envs.build("Breakout-MinAtar", 2))
        state, obs = env.reset(jax.random.key(4))
        states, observations = [state], [obs]
        step = jax.jit(env.step)
        for _ in range(2):
            state, told = step(state, jnp.zeros(2, int), jax.random.key(0))
            states, observations = [*states, state], [*observations, told.obs]
        stack = (lambda *xs: jnp.stack(xs)), *states
        return jax.tree.map(*stack), jnp.stack(observations)


def test_scenes_are_dug_out_of_wrappers_and_batches(breakout):
    states, observations = breakout
    for copy in (0, 1):
        scenes = drawing.scenes(states, observations, copy)
        assert [int(scene.state.time) for scene in scenes] == [0, 1, 2]
        assert [int(scene.state.ball_y) for scene in scenes] == [3, 4, 5]
        np.testing.assert_array_equal(scenes[1].obs, observations[1, copy])
    alone = drawing.scenes(jax.tree.map(lambda x: x[:, 1], states), observations[:, 1])
    assert int(alone[2].state.ball_x) == int(
        drawing.scenes(states, observations, 1)[2].state.ball_x
    )


def test_a_game_as_text_and_as_cells(breakout):
    scenes = [drawing.scenes(*breakout, copy)[2] for copy in (0, 1)]
    texts = [drawing.text("Breakout-MinAtar", scene) for scene in scenes]
    mirrored = BREAKOUT.replace("|.         |", "|         .|").replace("| o ", "|        o ")
    mirrored = mirrored.replace("|        o         |", "|        o |")
    assert set(texts) <= {BREAKOUT, mirrored}
    (picture,) = drawing.frames("Breakout-MinAtar", scenes[:1])
    assert picture.shape == (320, 320, 3)
    centers = picture[16::32, 16::32]
    grid = scenes[0].obs
    for channel in range(4):
        where = grid[..., channel] > 0
        np.testing.assert_array_equal(
            centers[where], np.broadcast_to(drawing.CHANNELS[channel], (where.sum(), 3))
        )
    assert (centers[grid.sum(-1) == 0] == drawing.NIGHT).all()


def test_the_first_channel_that_is_on_is_shown():
    obs = np.zeros((2, 3, 14))
    obs[0, 0, [1, 3]] = obs[1, 2, 13] = 1
    assert drawing.text("Mine", Scene(None, obs)).split("\n")[1:3] == ["|o  |", "|  ~|"]


def test_catch_tells_its_ball_from_its_paddle():
    obs = np.zeros((3, 4))
    obs[2, 1] = obs[2, 3] = 1
    caught = scene(*obs, paddle_x=3, paddle_y=2)
    assert drawing.text("Catch-bsuite", caught).split("\n")[1:4] == ["|    |", "|    |", "| o =|"]


@pytest.mark.parametrize(
    ("shape", "dtype", "top"),
    [((8, 8, 3), np.uint8, 255), ((8, 6), np.float32, 0.7), ((8, 8, 1), np.float32, 3)],
)
def test_pictures_are_enlarged_as_they_are(shape, dtype, top):
    obs = np.zeros(shape, dtype)
    obs[2, 4] = top
    obs[3, 4] = top / 2
    (picture,) = drawing.frames("Mine", [Scene(None, obs)])
    assert picture.shape == (320, 40 * shape[1], 3)
    assert picture[80:120, 160:200].min() == 255
    assert 120 < picture[130, 180].mean() < 130
    assert picture.sum(dtype=int) < 1.6 * 40 * 40 * 3 * 255
    assert drawing.text("Mine", Scene(None, obs)) is None


def test_channels_that_are_not_just_on_or_off_show_their_largest():
    obs = np.zeros((4, 4, 5))
    obs[1, 1] = 0.1, 0.2, 0.7, 0, 0
    assert drawing.text("Mine", Scene(None, obs)).split("\n")[2] == "| .  |"


def test_vectors_are_bars_against_their_largest():
    scenes = [scene(t / 2, -t / 4) for t in range(3)]
    first, middle, last = drawing.frames("Mine", scenes)
    assert first.shape == middle.shape == last.shape == (240, 480, 3)

    def heights(picture):
        return [(picture == color).all(axis=-1).any(axis=1).sum() for color in BARS]

    assert heights(first) == [0, 0]
    up, down = heights(last)
    assert abs(up - down) <= 2
    assert up > 80
    assert abs(heights(middle)[0] - up / 2) < 8
    assert drawing.text("Mine", scenes[0]) is None


BARS = (painters.BLUE, painters.ORANGE)


@pytest.mark.parametrize(
    "obs", [np.float32(3), np.int32(2), np.ones((1, 1)), np.ones((2, 2, 2, 2))]
)
def test_every_other_observation_has_a_picture(obs):
    (picture,) = drawing.frames("Mine", [Scene(None, obs)])
    assert picture.shape == (240, 480, 3)


def test_an_environment_of_ones_own():
    def reset(key):
        return {"key": key, "x": jnp.ones(2)}, jnp.ones(2)

    def step(state, action, key):
        return state, Step(
            jnp.ones(2), jnp.float32(0), jnp.bool(False), jnp.bool(False), jnp.ones(2)
        )

    env = envs.auto_reset(Env(EnvSpec((2,), num_actions=2), reset, step))
    states, obs = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 3))
    scenes = drawing.scenes(states, obs)
    assert len(scenes) == 3
    assert scenes[0].state["x"].tolist() == [1, 1]
    assert len(drawing.frames("Env", scenes)) == 3


def test_a_gif_holds_its_frames(tmp_path):
    pictures = [one("CartPole-v1", x, 0, 0.1, 0) for x in (-1, 0, 1)]
    drawing.write_gif(pictures, tmp_path / "a.gif", fps=20)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (3, (480, 300), 50)
        for i, picture in enumerate(pictures):
            gif.seek(i)
            read = np.asarray(gif.convert("RGB")).astype(int)
            assert np.abs(read - picture).mean() < 2
    assert drawing.frames("CartPole-v1", []) == drawing.frames("Mine", []) == []
    assert (drawing.frame_rate("gymnax/CartPole-v1"), drawing.frame_rate("Mine")) == (30, 10)


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
        drawing.write_gif([np.zeros((4, 4, 3), np.uint8)] * count, tmp_path / name, fps)
