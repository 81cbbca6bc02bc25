"""Tables on their grids: what stands where, in text and in the figure."""

from typing import NamedTuple

import numpy as np
import pytest

from rljax.envs import worlds
from rljax.ops import planning
from rljax.rendering import classic_control, frames, tables
from rljax.rendering.frames import Scene

MAZE = worlds.world_of("Maze").grid
TREASURE = worlds.world_of("Treasure").grid


def best(name, gamma=0.9):
    return np.asarray(planning.value_iteration(worlds.model(name), gamma).q)


class Two(NamedTuple):
    q: np.ndarray
    model: np.ndarray


class Value(NamedTuple):
    v: np.ndarray


def test_the_table_is_found_in_what_was_learned():
    q = np.arange(64.0).reshape(16, 4)
    assert tables.table_of(q) is not None
    np.testing.assert_array_equal(tables.table_of(Two(q, q[0])), q)
    np.testing.assert_array_equal(tables.table_of((q, q + 2)), q + 1)
    np.testing.assert_array_equal(tables.table_of(np.stack([q, q + 2])), q + 1)
    np.testing.assert_array_equal(tables.table_of(Value(q[:, 0])), q[:, 0])
    assert tables.table_of({"Dense_0": {"kernel": q}}) is None
    assert tables.table_of((q, q[0])) is None
    assert tables.table_of(np.float64(3)) is None


def test_a_table_fits_its_own_grid_alone():
    assert tables.fits(np.zeros((16, 4)), MAZE)
    assert tables.fits(np.zeros(16), MAZE)
    assert not tables.fits(np.zeros((16, 2)), MAZE)
    assert not tables.fits(np.zeros((6, 4)), MAZE)
    assert not tables.fits(None, MAZE)


def test_best_moves_are_all_that_are_as_good():
    moves = tables.best_moves(best("Maze"), MAZE)
    assert moves[0] == ("down", "right")
    assert (moves[11], moves[14], moves[10]) == (("left",), ("up",), ())
    assert tables.best_moves(np.zeros((16, 4)), MAZE) == [()] * 16
    assert tables.best_moves(np.arange(16.0), MAZE) == [()] * 16


def test_a_grid_as_text():
    lines = tables.values_text(best("Maze"), MAZE).split("\n")
    assert [line.split() for line in lines] == [
        ["0.590↓", "0.656→", "0.729→", "0.810↓"], ["0.656↓", "0.590↑", "X", "0.900↓"],
        ["0.729↓", "X", "G", "1.000←"], ["0.810→", "0.900→", "1.000↑", "0.900↑"],
    ]  # fmt: skip
    cliff = worlds.world_of("CliffWalking").grid
    last = tables.values_text(best("CliffWalking", 1.0), cliff).split("\n")[-1].split()
    assert last == ["-13.0↑", *"XXXXXXXXXX", "G"]


def test_a_row_as_text_is_a_table_of_its_actions():
    assert tables.values_text(best("Treasure"), TREASURE).split("\n") == [
        "state     left    right",
        "    0    0.590    0.656  →",
        "    1    0.590    0.729  →",
        "    2    0.656    0.810  →",
        "    3    0.729    0.900  →",
        "    4    0.810    1.000  →",
    ]
    walk = worlds.world_of("RandomWalk", length=3).grid
    assert tables.values_text(np.array([0, -0.5, -0.0001, 0.5, 0]), walk).split("\n") == [
        "state    value", "    1   -0.500", "    2    0.000", "    3    0.500",
    ]  # fmt: skip


def pixels(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def share(picture, color):
    return (np.abs(picture - color) < 12).all(axis=-1).mean()


def test_the_figure_shows_ends_walls_and_arrows(tmp_path):
    figure = tables.values_figure(best("Maze"), MAZE, tmp_path / "maze.png", title="Maze")
    assert (tmp_path / "maze.png").stat().st_size > 3000
    picture = pixels(figure)
    pit, goal = share(picture, classic_control.ORANGE), share(picture, classic_control.GREEN)
    assert 1.7 < pit / goal < 2.3
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("0.590") == 2 and {"S", "X", "G"} <= set(texts)
    arrows = [text for text in figure.axes[0].texts if getattr(text, "arrow_patch", None)]
    assert len(arrows) == 13 + 3  # three cells have two best moves
    dyna = worlds.world_of("DynaMaze").grid
    picture = pixels(tables.values_figure(np.zeros((54, 4)), dyna))
    assert share(picture, classic_control.INK) > 5 * share(picture, classic_control.GREEN)
    walk = worlds.world_of("RandomWalk").grid
    tables.values_figure(np.zeros(21), walk, path_of=[10, 11, 12])


def test_worlds_that_write_themselves_are_painted():
    first, last = "o.G\n.X#", "..o\n.X#"
    scenes = [Scene(None, np.int32(0), first), Scene(None, np.int32(2), last)]
    a, b = frames.draw_frames("rljax/Any", scenes)
    assert a.shape == b.shape == (144, 216, 3)
    height, width = a.shape[0] // 2, a.shape[1] // 3

    def color(picture, row, column, place):
        middle = picture[row * height + place, column * width + width // 2]
        return tuple(int(x) for x in middle)

    assert color(a, 0, 0, height // 2) == color(b, 0, 2, height // 2) == classic_control.BLUE
    assert (
        color(a, 0, 2, height // 2) == color(b, 0, 2, 6) == classic_control.GREEN
    )  # he stands on it
    assert color(a, 1, 1, height // 2) == classic_control.ORANGE
    assert color(a, 1, 2, height // 2) == classic_control.INK
    assert frames.text("rljax/Any", scenes[0]) == first
    assert frames.frame_rate("rljax/Any", scenes) == 6
    assert frames.frame_rate("rljax/Any", [Scene(None, 0, "o-T")]) == 3


@pytest.mark.parametrize("name", worlds.registered())
def test_every_world_has_its_figure(name):
    grid = worlds.world_of(name).grid
    table = np.zeros((grid.shape[0] * grid.shape[1], len(grid.moves)))
    table[:, 0] = 1
    assert tables.values_text(table, grid)
    assert tables.values_figure(table, grid).axes
