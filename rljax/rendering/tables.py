"""What a table holds, on the grid that it is of: as text, and as a figure with arrows."""

from pathlib import Path
from typing import Any

import numpy as np

from rljax.envs.grids import GOALS, MOVES, PIT, REVERSED, START, WALL, Grid
from rljax.rendering.classic_control import BLUE, FAINT, GREEN, INK, ORANGE, PAPER
from rljax.types import PyTree

ARROWS = {
    "up": "\N{UPWARDS ARROW}", "down": "\N{DOWNWARDS ARROW}", "right": "\N{RIGHTWARDS ARROW}",
    "left": "\N{LEFTWARDS ARROW}", "up right": "\N{NORTH EAST ARROW}", "stay": "\N{MIDDLE DOT}",
    "down right": "\N{SOUTH EAST ARROW}", "down left": "\N{SOUTH WEST ARROW}",
    "up left": "\N{NORTH WEST ARROW}",
}  # fmt: skip
NEAR = 1e-6  # of the largest value: actions so near to the best are as good


def table_of(params: PyTree) -> np.ndarray | None:
    """The table in what an agent has learned: `q [S, A]`, the mean of several, or `v [S]`."""
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
    """Whether a table has a row for every cell of a grid."""
    if table is None or len(table) != grid.shape[0] * grid.shape[1]:
        return False
    return table.ndim == 1 or table.shape[1] == len(grid.moves)


def best_moves(table: np.ndarray, grid: Grid) -> list[tuple[str, ...]]:
    """For every cell the moves that are best; none where all are equal, and in `v [S]`."""
    if table.ndim == 1:
        return [()] * len(table)
    near = NEAR * max(np.abs(table).max(), NEAR)
    best = table >= table.max(axis=1, keepdims=True) - near
    return [
        () if row.all() else tuple(np.array(grid.moves, object)[row]) for row in best
    ]  # fmt: skip


def values_text(table: np.ndarray, grid: Grid) -> str:
    """The values of a grid, the best action an arrow; of a row of cells a line for each cell."""
    cells, (height, width) = "".join(grid.now), grid.shape
    value = table.max(axis=1) if table.ndim == 2 else table
    arrows = ["".join(ARROWS[move] for move in moves[:1]) for moves in best_moves(table, grid)]
    ends = [kind in (*GOALS, WALL, PIT) for kind in cells]
    if height == 1:
        write = _number(table)
        names = list(grid.moves) if table.ndim == 2 else ["value"]
        lines = ["state" + "".join(f"{name:>9}" for name in names)]
        for cell, row in enumerate(table.reshape(len(table), -1)):
            if not ends[cell]:
                numbers = "".join(f"{write(number):>9}" for number in row)
                lines.append(f"{cell:>5}{numbers}  {arrows[cell]}".rstrip())
        return "\n".join(lines)
    write = _number(value[~np.array(ends)])
    size = max(len(write(number)) for number in value[~np.array(ends)])
    rows = []
    for row in range(height):
        places = range(row * width, (row + 1) * width)
        shown = [
            cells[cell].center(size + 1) if ends[cell]
            else f"{write(value[cell]):>{size}}{arrows[cell] or ' '}"
            for cell in places
        ]  # fmt: skip
        rows.append("  ".join(shown).rstrip())
    return "\n".join(rows)


def _number(table: np.ndarray):
    largest = np.abs(table).max()
    places = 3 if largest < 2 else 1 if largest < 100 else 0
    return lambda x: f"{x:.{places}f}" if abs(x) >= 0.5 * 10**-places else f"{0:.{places}f}"


def values_figure(
    table: np.ndarray, grid: Grid, path: str | Path | None = None, *, title: str = "",
    ax: Any = None, path_of: list[int] | None = None,
) -> Any:  # fmt: skip
    """Draws the values of a grid as shades and numbers, and its best actions as arrows.

    Args:
      table: `q [S, A]` or `v [S]`.
      path: where to write it, .png, .pdf or .svg; the folder exists.
      ax: axes of the caller; a new figure otherwise.
      path_of: cells in the order in which an episode goes through them, drawn as a line.
    Returns:
      the matplotlib figure.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    cells, (height, width) = "".join(grid.now), grid.shape
    value = table.max(axis=1) if table.ndim == 2 else table
    free = np.array([kind not in (*GOALS, WALL, PIT) for kind in cells])
    if ax is None:
        side = max(0.55, min(1.0, 7.5 / width))
        extra = 0.45 if title else 0.1
        figure = Figure((side * width + 0.2, side * height + extra), layout="constrained")
        ax = figure.subplots()
    shades = LinearSegmentedColormap.from_list("shades", [_rgb(PAPER), (0.55, 0.7, 0.86)])
    scale = Normalize(value[free].min(), max(value[free].max(), value[free].min() + 1e-9))
    fixed = {WALL: _rgb(INK), PIT: _rgb(ORANGE), **{goal: _rgb(GREEN) for goal in GOALS}}
    place = ax.get_window_extent()
    points = min(place.width / width, place.height / height) * 72 / ax.figure.dpi
    write, size = _number(value[free]), max(4.0, min(9.0, points / 5.5))
    moves = best_moves(table, grid)
    for cell, kind in enumerate(cells):
        row, column = divmod(cell, width)
        color = fixed[kind] if kind in fixed else shades(scale(value[cell]))
        box = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, edgecolor=_rgb(FAINT))
        ax.add_patch(box)
        if kind in fixed:
            letter = "" if kind == WALL else kind
            ax.text(column, row, letter, color="white", fontsize=size, ha="center", va="center")
            continue
        mark = {START: "S", REVERSED: "<"}.get(kind, "")
        ax.text(column - 0.44, row - 0.3, mark, fontsize=size, color="#777777", va="center")
        below = 0.26 if table.ndim == 2 else 0.0
        ax.text(
            column, row + below, write(value[cell]) if value[cell] else "0", fontsize=size,
            ha="center", va="center", color=_rgb(INK),
        )  # fmt: skip
        for move in moves[cell]:
            alone = len(moves[cell]) == 1  # then in the middle
            down, right = (0.1 * way * alone for way in MOVES[move])
            _arrow(ax, column - right, row - 0.12 - down, MOVES[move], points)
    if path_of:
        rows, columns = np.divmod(np.asarray(path_of), width)
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


def _arrow(ax: Any, x: float, y: float, move: tuple[int, int], points: float) -> None:
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


def _rgb(color: tuple[int, int, int]) -> tuple[float, float, float]:
    return color[0] / 255, color[1] / 255, color[2] / 255
