"""Captions under frames, and labelled bars."""

from typing import NamedTuple

import numpy as np

from rljax.rendering import bars, captions, frames
from rljax.rendering.bars import draw_bars, value_text
from rljax.rendering.canvas import BACKGROUND, BLUE, ORANGE, text_width
from rljax.rendering.scene import Scene

BLANK = np.full((50, 300, 3), 90, np.uint8)


def test_numbers_and_actions_as_text():
    assert [captions.number(x) for x in (2, -0.25, 1 / 3, -1e-9, 1e7)] == [
        "2", "-0.25", "0.333", "0", "1e+07",
    ]  # fmt: skip
    assert captions.action_text(np.int32(1), ("left", "right")) == "right"
    assert captions.action_text(np.int32(2), ("left", "right")) == "2"
    assert captions.action_text(np.array([0, 3])) == "0 3"
    assert captions.action_text(np.float32([0.5, -1])) == "0.50 -1.00"
    assert value_text(-0.0001, 1) == "0.00" and value_text(3, 5, whole=True) == "3"


def test_a_caption_has_one_row_or_two_and_the_frames_one_size():
    actions = [None, np.int32(0), np.int32(1)]
    captioned = captions.with_captions([BLANK] * 3, actions, [None, 1.0, -2.0])
    assert {frame.shape for frame in captioned} == {(74, 300, 3)}
    assert len({frame.tobytes() for frame in captioned}) == 3
    for frame in captioned:
        np.testing.assert_array_equal(frame[:50], BLANK)
    long = [None, np.zeros(6, np.float32), np.ones(6, np.float32)]
    assert captions.with_captions([BLANK] * 3, long, [None, 1.0, -2.0])[0].shape == (94, 300, 3)


def test_narrow_frames_are_widened():
    frame = captions.with_captions([BLANK[:, :40]], [None], [None])[0]
    assert frame.shape == (74, captions.MIN_WIDTH, 3)
    assert (frame[:50, 100:140] == 90).all() and (frame[:50, :100] == BACKGROUND).all()


def test_scenes_without_actions_have_no_caption():
    scene = Scene(None, np.zeros(2, np.float32))
    (plain,) = frames.draw_frames("Mine", [scene])
    (captioned,) = frames.draw_frames("Mine", [scene._replace(action=np.int32(0), reward=1.0)])
    assert captioned.shape[0] == plain.shape[0] + 24


def test_long_texts_are_cut():
    cut = captions.shorten("abc " * 40, 100)
    assert cut.endswith("...") and text_width(cut, captions.SIZE) <= 100
    assert captions.shorten("abc", 100) == "abc"


class Obs(NamedTuple):
    position: np.ndarray
    speed: np.float32
    fuel: np.float32
    action_mask: np.ndarray


def test_each_array_of_a_tree_has_a_panel_with_its_name():
    obs = Obs(np.ones((2, 3)), np.float32(1), np.float32(2), np.ones(4, bool))
    panels, left_out = bars._panels([obs, obs])
    assert [panel.title for panel in panels] == ["numbers", "position [2, 3]", "action_mask [4]"]
    assert panels[0].labels == ["speed", "fuel"]
    assert panels[1].labels == ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2"]
    assert not left_out
    assert draw_bars([obs])[0].shape == (3 * bars.PANEL_HEIGHT, 480, 3)
    many = {f"x{i}": np.ones(2) for i in range(9)}
    assert bars._panels([many])[1] == ["x6 [2]", "x7 [2]", "x8 [2]"]
    assert draw_bars([many])[0].shape == (6 * bars.PANEL_HEIGHT + bars.TITLE, 480, 3)


def test_bars_without_negative_values_use_the_whole_height():
    def height(*values):
        frame = draw_bars([np.float32(values)])[0]
        return (frame == BLUE).all(axis=-1).any(axis=1).sum()

    assert abs(height(1, 1) - 2 * height(1, -1)) < 6


def test_many_components_are_bars_with_one_scale_and_more_are_cells():
    ramp = np.linspace(0, 1, 20)
    (frame,) = draw_bars([ramp])
    tops = [(frame[:, x] == BLUE).all(axis=-1).sum() for x in (119, 226, 333, 440)]
    assert tops == sorted(tops) and tops[3] > 4 * tops[0]
    (frame,) = draw_bars([np.linspace(-1, 1, 700)])
    for color, y in ((ORANGE, 40), (BLUE, 210)):
        assert np.abs(frame[y, 100:400].astype(int) - color).max(axis=-1).min() < 40


def test_values_that_are_not_finite_are_drawn():
    assert draw_bars([np.array([np.nan, np.inf, 1.0])])[0].shape == (240, 480, 3)
