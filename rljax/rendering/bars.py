"""Observations as labelled bars: one panel for each array, one bar for each component."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax.rendering.canvas import BACKGROUND, BLUE, FAINT, INK, ORANGE, TILE, Canvas
from rljax.rendering.captions import shorten

WIDTH, SINGLE_HEIGHT, PANEL_HEIGHT = 480, 240, 140
LEFT, RIGHT, TITLE = 44, 8, 22  # margins and the height of a title, pixels
MAX_PANELS, MAX_NUMBERS, MAX_BARS = 6, 12, 64
PALE = (150, 152, 158)  # of small print
TRACE = 8  # preceding steps that are shown as faint lines


class Panel(NamedTuple):
    """One array of the observation over an episode.

    Attributes:
      title: its name and shape.
      labels: a label for each component.
      values: `[T, n]`.
    """

    title: str
    labels: list[str]
    values: np.ndarray


def draw_bars(observations: Sequence[Any], labels: Sequence[str] = ()) -> list[np.ndarray]:
    """Draws observations as bars; arrays of more than 64 components as colored cells.

    Up to 12 bars are relative to the largest absolute value of their component in the episode,
    with the value below. More bars have one scale. Faint lines show the preceding steps, and a
    line at the bottom the progress of the episode.

    Args:
      observations: arrays or trees of arrays, all of the same shapes.
      labels: names of the components of an observation that is one vector; its indices otherwise.

    Returns:
      Frames, uint8 `[H, W, 3]`.
    """
    if not len(observations):
        return []
    panels, left_out = _panels(observations)
    if len(panels) == 1 and len(labels) == len(panels[0].labels):
        panels[0] = panels[0]._replace(labels=list(labels))
    each = SINGLE_HEIGHT if len(panels) == 1 else PANEL_HEIGHT
    height = each * len(panels) + (TITLE if left_out else 0)
    frames = []
    for t in range(len(observations)):
        canvas = Canvas((WIDTH, height), 0, 0, WIDTH)
        for i, panel in enumerate(panels):
            _draw_panel(canvas, panel, t, height - i * each, each)
        if left_out:
            note = shorten(f"not drawn: {', '.join(left_out)}", WIDTH - 16, 11)
            canvas.text((8, 12), note, 11, PALE, "lm")
        done = WIDTH * (t + 1) / len(observations)
        canvas.line([(0, 1.5), (done, 1.5)], 3, INK)
        frames.append(canvas.frame())
    return frames


def _panels(observations: Sequence[Any]) -> tuple[list[Panel], list[str]]:
    """Returns the panels, and the names of arrays for which there is no room."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(observations[0])[0]]
    columns = [
        np.nan_to_num(np.stack([np.asarray(x, np.float64) for x in leaves]))
        for leaves in zip(*map(jax.tree.leaves, observations), strict=True)
    ]
    names = [".".join(_key_name(key) for key in path) for path in paths]
    numbers = [i for i, x in enumerate(columns) if x[0].size == 1]
    panels = []
    if numbers and len(columns) > 1:  # single numbers share one panel
        values = np.concatenate([columns[i].reshape(len(columns[i]), 1) for i in numbers], axis=1)
        panels.append(Panel("numbers", [names[i] for i in numbers], values))
    else:
        numbers = []
    for i, x in enumerate(columns):
        if i in numbers or not x[0].size:
            continue
        shape = x.shape[1:]
        labels = [",".join(map(str, index)) or "value" for index in np.ndindex(shape)]
        size = f" [{', '.join(map(str, shape))}]" if shape else ""
        panels.append(Panel(f"{names[i] or 'observation'}{size}", labels, x.reshape(len(x), -1)))
    shown, hidden = panels[:MAX_PANELS], panels[MAX_PANELS:]
    return shown, [panel.title for panel in hidden]


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _draw_panel(canvas: Canvas, panel: Panel, t: int, top: float, height: float) -> None:
    canvas.text((8, top - TITLE / 2), panel.title, 12, INK, "lm")
    count = panel.values.shape[1]
    if count > MAX_BARS:
        _draw_cells(canvas, panel, t, top, height)
        return
    has_numbers = count <= MAX_NUMBERS
    bottom = top - height + (46 if has_numbers else 24)
    is_signed = bool((panel.values < 0).any())
    unit = (top - TITLE - bottom) / (2 if is_signed else 1) - 1
    middle = bottom + 1 + (unit if is_signed else 0)  # of bars of value 0
    largest = np.abs(panel.values).max(axis=0)
    scales = np.maximum(largest if has_numbers else largest.max(), 1e-9)
    levels = (panel.values / scales).clip(-1, 1) * unit
    left = 8 if has_numbers else LEFT
    step = (WIDTH - left - RIGHT) / count
    half = min(0.3 * step, 30)
    canvas.line([(left, middle), (WIDTH - RIGHT, middle)], 1, FAINT)
    if not has_numbers:
        for level, value in ((-unit, -scales), (0, 0), (unit, scales))[not is_signed :]:
            canvas.text((LEFT - 6, middle + level), value_text(value, scales), 10, PALE, "rm")
    every = max(1, int(np.ceil(max(map(len, panel.labels)) * 7 / step)))
    for i, label in enumerate(panel.labels):
        x, level = left + (i + 0.5) * step, float(levels[t, i])
        for earlier in levels[max(0, t - TRACE) : t, i]:
            line = [(x - half, middle + float(earlier)), (x + half, middle + float(earlier))]
            canvas.line(line, 1, FAINT)
        low, high = sorted((middle, middle + level))
        box = [(x - half, low), (x + half, low), (x + half, high), (x - half, high)]
        if high > low:
            canvas.polygon(box, BLUE if level > 0 else ORANGE)
        if has_numbers:
            whole = not (panel.values[:, i] % 1).any()
            value, limit = (
                value_text(x, largest[i], whole) for x in (panel.values[t, i], largest[i])
            )
            canvas.text((x, bottom - 9), shorten(label, step - 2, 11), 11)
            canvas.text((x, bottom - 21), value, 11)
            limit = f"max {limit}" if step > 44 else limit
            canvas.text((x, bottom - 33), limit, 9, PALE)
        elif i % every == 0:
            canvas.text((x, bottom - 9), label, 10)


def _draw_cells(canvas: Canvas, panel: Panel, t: int, top: float, height: float) -> None:
    """Draws many components as cells, row by row: blue is positive and orange negative."""
    from PIL import Image

    count = panel.values.shape[1]
    columns = min(count, max(32, int(np.ceil(np.sqrt(3.5 * count)))))
    rows = -(-count // columns)
    scale = max(float(np.abs(panel.values).max()), 1e-9)
    level = np.zeros(rows * columns)
    level[:count] = (panel.values[t] / scale).clip(-1, 1)
    amount = np.abs(level)[:, None]
    color = np.where(level[:, None] > 0, np.array(BLUE), np.array(ORANGE))
    cells = amount * color + (1 - amount) * np.array(TILE)
    cells[count:] = BACKGROUND
    image = Image.fromarray(cells.round().astype(np.uint8).reshape(rows, columns, 3))
    s, room = canvas.SUPERSAMPLING, (WIDTH - LEFT - RIGHT, height - TITLE - 12)
    box = (round(room[0] * s), round(room[1] * s))
    corner = (LEFT * s, round((canvas.top - top + TITLE) * s))
    canvas.image.paste(image.resize(box, Image.Resampling.NEAREST), corner)
    for row in sorted({0, rows // 2, rows - 1}):
        y = top - TITLE - room[1] * (row + 0.5) / rows
        canvas.text((LEFT - 6, y), panel.labels[row * columns], 10, PALE, "rm")
    text = f"blue: up to {value_text(scale, scale)}, orange: down to {value_text(-scale, scale)}"
    canvas.text((WIDTH - RIGHT, top - TITLE / 2), text, 10, PALE, "rm")


def value_text(value: Any, scale: Any, whole: bool = False) -> str:
    """Returns a value with as many decimals as suit its scale, so that its width is steady."""
    value, scale = float(value), abs(float(scale))
    if scale >= 1e5 or (0 < scale < 0.005):
        return f"{value:.0e}"
    decimals = 0 if whole or scale >= 1000 or scale == 0 else 1 if scale >= 10 else 2
    return f"{value if abs(value) >= 0.5 * 10**-decimals else 0:.{decimals}f}"
