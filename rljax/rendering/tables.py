"""Value tables of tabular agents, drawn on their grid: as text, or as a figure with arrows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rljax.envs.grids import GOALS, MOVES, PIT, REVERSED, START, WALL, Grid
from rljax.rendering.canvas import BACKGROUND, BLUE, FAINT, GREEN, INK, ORANGE
from rljax.types import PyTree

ARROWS = {
    "up": "\N{UPWARDS ARROW}", "down": "\N{DOWNWARDS ARROW}", "right": "\N{RIGHTWARDS ARROW}",
    "left": "\N{LEFTWARDS ARROW}", "up right": "\N{NORTH EAST ARROW}", "stay": "\N{MIDDLE DOT}",
    "down right": "\N{SOUTH EAST ARROW}", "down left": "\N{SOUTH WEST ARROW}",
    "up left": "\N{NORTH WEST ARROW}",
}  # fmt: skip
TIE = 1e-6  # actions count as equally good up to this fraction of the largest value


def _rgb(color: tuple[int, int, int]) -> tuple[float, float, float]:
    return color[0] / 255, color[1] / 255, color[2] / 255


CELL_COLORS = {WALL: _rgb(INK), PIT: _rgb(ORANGE), **{goal: _rgb(GREEN) for goal in GOALS}}


def table_of(params: PyTree) -> np.ndarray | None:
    """Returns the value table in an agent's parameters: `q [S, A]`, `v [S]`, or None.

    Several tables of one shape, as in double Q-learning, are averaged.
    """
    for name in ("q", "v"):
        params = getattr(params, name, params)
    leaves = params if isinstance(params, (tuple, list)) else [params]
    if not all(hasattr(leaf, "shape") for leaf in leaves):
        return None
    if len({np.shape(leaf) for leaf in leaves}) != 1:
        return None
    table = np.mean([np.asarray(leaf, np.float64) for leaf in leaves], axis=0)
    table = table.mean(axis=0) if table.ndim == 3 else table
    return table if table.ndim in (1, 2) else None


def fits(table: np.ndarray | None, grid: Grid) -> bool:
    """Whether a table has a row for every cell of a grid, and a column for every move."""
    if table is None or len(table) != grid.shape[0] * grid.shape[1]:
        return False
    return table.ndim == 1 or table.shape[1] == len(grid.moves)


def best_moves(table: np.ndarray, grid: Grid) -> list[tuple[str, ...]]:
    """Returns the best moves of every cell: none where all are equal, or for a table `v [S]`."""
    if table.ndim == 1:
        return [()] * len(table)
    tolerance = TIE * max(np.abs(table).max(), TIE)
    best = table >= table.max(axis=1, keepdims=True) - tolerance
    return [() if row.all() else tuple(np.array(grid.moves, object)[row]) for row in best]


def values_text(table: np.ndarray, grid: Grid) -> str:
    """Returns the values of a grid as text, with an arrow for the best action.

    A world of one row of cells becomes a table with one line per cell and one column per action.
    """
    cells, (height, width) = "".join(grid.initial_drawing), grid.shape
    value = table.max(axis=1) if table.ndim == 2 else table
    arrows = ["".join(ARROWS[move] for move in moves[:1]) for moves in best_moves(table, grid)]
    has_value = np.array([cell not in (*GOALS, WALL, PIT) for cell in cells])
    if height == 1:
        to_text = _number_format(table)
        names = list(grid.moves) if table.ndim == 2 else ["value"]
        lines = ["state" + "".join(f"{name:>9}" for name in names)]
        for state, row in enumerate(table.reshape(len(table), -1)):
            if has_value[state]:
                numbers = "".join(f"{to_text(number):>9}" for number in row)
                lines.append(f"{state:>5}{numbers}  {arrows[state]}".rstrip())
        return "\n".join(lines)
    to_text = _number_format(value[has_value])
    size = max(len(to_text(number)) for number in value[has_value])
    rows = []
    for row in range(height):
        entries = [
            f"{to_text(value[state]):>{size}}{arrows[state] or ' '}" if has_value[state]
            else cells[state].center(size + 1)
            for state in range(row * width, (row + 1) * width)
        ]  # fmt: skip
        rows.append("  ".join(entries).rstrip())
    return "\n".join(rows)


def _number_format(table: np.ndarray) -> Callable[[float], str]:
    """Returns a function that writes numbers with as many decimals as suit the table."""
    largest = np.abs(table).max()
    decimals = 3 if largest < 2 else 1 if largest < 100 else 0
    return lambda x: f"{x if abs(x) >= 0.5 * 10**-decimals else 0:.{decimals}f}"


def values_figure(
    table: np.ndarray, grid: Grid, path: str | Path | None = None, *, title: str = "",
    ax: Any = None, visited: list[int] | None = None,
) -> Any:  # fmt: skip
    """Draws the values of a grid as colors and numbers, and its best actions as arrows.

    Args:
      table: `q [S, A]` or `v [S]`.
      grid: the grid of the world.
      path: path of the file to write, .png, .pdf or .svg, in a folder that exists; or None.
      title: title of the figure.
      ax: matplotlib axes to draw on; None makes a new figure.
      visited: cells in the order in which an episode visits them, drawn as a line.

    Returns:
      The matplotlib figure.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    cells, (height, width) = "".join(grid.initial_drawing), grid.shape
    value = table.max(axis=1) if table.ndim == 2 else table
    has_value = np.array([cell not in (*GOALS, WALL, PIT) for cell in cells])
    ax = _new_axes(height, width, bool(title)) if ax is None else ax
    colormap = LinearSegmentedColormap.from_list("values", [_rgb(BACKGROUND), (0.55, 0.7, 0.86)])
    low, high = value[has_value].min(), value[has_value].max()
    normalize = Normalize(low, max(high, low + 1e-9))
    extent = ax.get_window_extent()
    points = min(extent.width / width, extent.height / height) * 72 / ax.figure.dpi
    to_text, font_size = _number_format(value[has_value]), max(4.0, min(9.0, points / 5.5))
    moves = best_moves(table, grid)
    for state, cell in enumerate(cells):
        row, column = divmod(state, width)
        if not has_value[state]:
            _draw_square(ax, row, column, CELL_COLORS[cell])
            letter = "" if cell == WALL else cell
            _draw_text(ax, row, column, letter, font_size, "white")
            continue
        _draw_square(ax, row, column, colormap(normalize(value[state])))
        mark = {START: "S", REVERSED: "<"}.get(cell, "")
        ax.text(column - 0.44, row - 0.3, mark, fontsize=font_size, color="#777777", va="center")
        number = to_text(value[state]) if value[state] else "0"
        number_row = row + 0.26 if table.ndim == 2 else row
        _draw_text(ax, number_row, column, number, font_size, _rgb(INK))
        for move in moves[state]:
            is_only = len(moves[state]) == 1  # a single arrow is centered
            down, right = (0.1 * step * is_only for step in MOVES[move])
            _draw_arrow(ax, column - right, row - 0.12 - down, MOVES[move], points)
    if visited:
        rows, columns = np.divmod(np.asarray(visited), width)
        ax.plot(columns, rows, color=_rgb(ORANGE), linewidth=5, alpha=0.45, zorder=1.5)
    ax.set_xlim(-0.52, width - 0.48)
    ax.set_ylim(height - 0.48, -0.52)
    ax.set_aspect("equal")
    ax.axis("off")
    if title:
        ax.set_title(title, loc="left", fontsize=10, fontweight="bold")
    if path is not None:
        ax.figure.savefig(path, dpi=150)
    return ax.figure


def _new_axes(height: int, width: int, has_title: bool) -> Any:
    from matplotlib.figure import Figure

    side = max(0.55, min(1.0, 7.5 / width))
    margin = 0.45 if has_title else 0.1
    figure = Figure((side * width + 0.2, side * height + margin), layout="constrained")
    return figure.subplots()


def _draw_square(ax: Any, row: int, column: int, color: Any) -> None:
    from matplotlib.patches import Rectangle

    corner = (column - 0.5, row - 0.5)
    ax.add_patch(Rectangle(corner, 1, 1, facecolor=color, edgecolor=_rgb(FAINT)))


def _draw_text(ax: Any, row: float, column: int, text: str, size: float, color: Any) -> None:
    ax.text(column, row, text, color=color, fontsize=size, ha="center", va="center")


def _draw_arrow(ax: Any, x: float, y: float, move: tuple[int, int], points: float) -> None:
    down, right = move
    if not (down or right):
        ax.plot([x], [y], marker="o", markersize=3, color=_rgb(BLUE))
        return
    length = 0.2 / np.hypot(down, right)
    ends = (x + right * length, y + down * length), (x, y)
    size = max(3.5, min(8.0, points / 5))
    style = {"arrowstyle": "-|>", "color": _rgb(BLUE), "shrinkA": 0, "shrinkB": 0}
    style |= {"mutation_scale": size, "linewidth": size / 7}
    ax.annotate("", *ends, arrowprops=style)
