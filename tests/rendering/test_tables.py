"""Value tables on their grids, as text and as a figure."""

from typing import NamedTuple

import numpy as np
import pytest

from rljax.envs import worlds
from rljax.ops import planning
from rljax.rendering import frames, tables
from rljax.rendering.canvas import BLUE, GREEN, INK, ORANGE
from rljax.rendering.frames import Scene

MAZE = worlds.world_of("Maze").grid
TREASURE = worlds.world_of("Treasure").grid


def optimal_q(name, gamma=0.9):
    return np.asarray(planning.value_iteration(worlds.model(name), gamma).q)


class QAndModel(NamedTuple):
    q: np.ndarray
    model: np.ndarray


class StateValue(NamedTuple):
    v: np.ndarray


def test_table_of_finds_the_table_in_the_parameters():
    q = np.arange(64.0).reshape(16, 4)
    assert tables.table_of(q) is not None
    np.testing.assert_array_equal(tables.table_of(QAndModel(q, q[0])), q)
    np.testing.assert_array_equal(tables.table_of((q, q + 2)), q + 1)
    np.testing.assert_array_equal(tables.table_of(np.stack([q, q + 2])), q + 1)
    np.testing.assert_array_equal(tables.table_of(StateValue(q[:, 0])), q[:, 0])
    assert tables.table_of({"Dense_0": {"kernel": q}}) is None
    assert tables.table_of((q, q[0])) is None
    assert tables.table_of(np.float64(3)) is None


def test_fits_compares_rows_and_columns():
    assert tables.fits(np.zeros((16, 4)), MAZE)
    assert tables.fits(np.zeros(16), MAZE)
    assert not tables.fits(np.zeros((16, 2)), MAZE)
    assert not tables.fits(np.zeros((6, 4)), MAZE)
    assert not tables.fits(None, MAZE)


def test_best_moves_include_ties():
    moves = tables.best_moves(optimal_q("Maze"), MAZE)
    assert moves[0] == ("down", "right")
    assert (moves[11], moves[14], moves[10]) == (("left",), ("up",), ())
    assert tables.best_moves(np.zeros((16, 4)), MAZE) == [()] * 16
    assert tables.best_moves(np.arange(16.0), MAZE) == [()] * 16


def test_values_of_a_grid_as_text():
    lines = tables.values_text(optimal_q("Maze"), MAZE).split("\n")
    assert [line.split() for line in lines] == [
        ["0.590↓", "0.656→", "0.729→", "0.810↓"], ["0.656↓", "0.590↑", "X", "0.900↓"],
        ["0.729↓", "X", "G", "1.000←"], ["0.810→", "0.900→", "1.000↑", "0.900↑"],
    ]  # fmt: skip
    cliff = worlds.world_of("CliffWalking").grid
    last = tables.values_text(optimal_q("CliffWalking", 1.0), cliff).split("\n")[-1].split()
    assert last == ["-13.0↑", *"XXXXXXXXXX", "G"]


def test_values_of_a_row_of_cells_as_text():
    assert tables.values_text(optimal_q("Treasure"), TREASURE).split("\n") == [
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


def fraction(image, color):
    return (np.abs(image - color) < 12).all(axis=-1).mean()


def test_the_figure_shows_goals_pits_walls_and_arrows(tmp_path):
    figure = tables.values_figure(optimal_q("Maze"), MAZE, tmp_path / "maze.png", title="Maze")
    assert (tmp_path / "maze.png").stat().st_size > 3000
    image = pixels(figure)
    pit, goal = fraction(image, ORANGE), fraction(image, GREEN)
    assert 1.7 < pit / goal < 2.3
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("0.590") == 2 and {"S", "X", "G"} <= set(texts)
    arrows = [text for text in figure.axes[0].texts if getattr(text, "arrow_patch", None)]
    assert len(arrows) == 13 + 3  # three cells have two best moves
    dyna = worlds.world_of("DynaMaze").grid
    image = pixels(tables.values_figure(np.zeros((54, 4)), dyna))
    assert fraction(image, INK) > 5 * fraction(image, GREEN)
    walk = worlds.world_of("RandomWalk").grid
    tables.values_figure(np.zeros(21), walk, visited=[10, 11, 12])


def test_text_worlds_are_drawn_from_their_text():
    first, last = "o.G\n.X#", "..o\n.X#"
    scenes = [Scene(None, np.int32(0), first), Scene(None, np.int32(2), last)]
    a, b = frames.draw_frames("rljax/Any", scenes)
    assert a.shape == b.shape == (144, 216, 3)
    height, width = a.shape[0] // 2, a.shape[1] // 3

    def color(frame, row, column, y):
        pixel = frame[row * height + y, column * width + width // 2]
        return tuple(int(x) for x in pixel)

    assert color(a, 0, 0, height // 2) == color(b, 0, 2, height // 2) == BLUE
    # the agent of `b` is on the goal, which shows at the edge of the cell
    assert color(a, 0, 2, 6) == color(b, 0, 2, 6) == GREEN
    assert color(a, 1, 1, 6) == ORANGE
    assert color(a, 1, 2, height // 2) == INK
    assert frames.text("rljax/Any", scenes[0]) == first
    assert frames.renderer_of("rljax/Any", scenes).fps == 6
    assert frames.renderer_of("rljax/Any", [Scene(None, 0, "o-T")]).fps == 3


@pytest.mark.parametrize("name", worlds.WORLDS)
def test_every_world_has_a_figure(name):
    grid = worlds.world_of(name).grid
    table = np.zeros((grid.shape[0] * grid.shape[1], len(grid.moves)))
    table[:, 0] = 1
    assert tables.values_text(table, grid)
    assert tables.values_figure(table, grid).axes
