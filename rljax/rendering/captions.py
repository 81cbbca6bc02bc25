"""A line under each frame: step number, action, reward and return."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rljax.rendering.canvas import BACKGROUND, FAINT, Canvas, text_width

SIZE, ROW, MARGIN, GAP = 12, 20, 8, 14  # of the font, a row, the sides and between fields, pixels
MIN_WIDTH = 240


def number(x: Any) -> str:
    """Returns a number with at most three decimals."""
    text = f"{float(x):.3f}".rstrip("0").rstrip(".") if abs(float(x)) < 1e5 else f"{float(x):.3g}"
    return "0" if text in ("-0", "") else text


def action_text(action: Any, names: Sequence[str] = ()) -> str:
    """Returns an action: its name, an index, or components with two decimals."""
    action = np.asarray(action)
    if np.issubdtype(action.dtype, np.floating):
        return " ".join(f"{x:.2f}" for x in action.ravel())
    if action.ndim == 0 and int(action) < len(names):
        return names[int(action)]
    return " ".join(str(int(x)) for x in action.ravel())


def with_captions(
    frames: Sequence[np.ndarray], actions: Sequence[Any], rewards: Sequence[Any],
    names: Sequence[str] = (),
) -> list[np.ndarray]:  # fmt: skip
    """Adds a caption under each frame, at the same place in all of them.

    Args:
      frames: uint8 `[H, W, 3]`, all of the same size.
      actions: the action that led to each frame; None before the first step.
      rewards: the reward of that action; None before the first step.
      names: names of discrete actions.

    Returns:
      Frames of one larger size; narrow ones also become wider.
    """
    width = max(frames[0].shape[1], MIN_WIDTH)
    fields, total = [], 0.0
    for t, (action, reward) in enumerate(zip(actions, rewards, strict=True)):
        total += 0.0 if reward is None else float(reward)
        fields.append([
            f"step {t}",
            "" if action is None else f"action {action_text(action, names)}",
            "" if reward is None else f"reward {number(reward)}",
            f"return {number(total)}",
        ])  # fmt: skip
    rows = _rows([max(text_width(row[i], SIZE) for row in fields) for i in range(4)], width)
    return [
        _with_strip(frame, [[(texts[i], x, room) for i, x, room in row] for row in rows], width)
        for frame, texts in zip(frames, fields, strict=True)
    ]


def _rows(widths: Sequence[float], width: int) -> list[list[tuple[int, float, float]]]:
    """Returns rows of `(field, x, room)`: one row, or two where the fields need more width."""
    room = width - 2 * MARGIN
    if sum(widths) + 3 * GAP <= room:
        starts = [MARGIN + sum(widths[:i]) + i * GAP for i in range(4)]
        return [[(i, start, room) for i, start in enumerate(starts)]]
    left = max(widths[0], widths[2]) + GAP
    return [
        [(first, MARGIN, left), (first + 1, MARGIN + left, room - left)] for first in (0, 2)
    ]  # fmt: skip


def _with_strip(
    frame: np.ndarray, rows: Sequence[Sequence[tuple[str, float, float]]], width: int
) -> np.ndarray:
    """Draws the frame in the middle, and the rows of texts under it."""
    height = ROW * len(rows) + 4
    canvas = Canvas((width, height), 0, 0, width)
    canvas.line([(0, height - 1), (width, height - 1)], 1, FAINT)
    for i, row in enumerate(rows):
        for text, x, room in row:
            point = (x, height - 3 - ROW * (i + 0.5))
            canvas.text(point, shorten(text, room), SIZE, anchor="lm")
    left = (width - frame.shape[1]) // 2
    wide = np.full((frame.shape[0], width, 3), BACKGROUND, np.uint8)
    wide[:, left : left + frame.shape[1]] = frame
    return np.concatenate([wide, canvas.frame()])


def shorten(text: str, room: float, size: float = SIZE) -> str:
    """Returns a text cut to a width in pixels, with "..." where something is left out."""
    if text_width(text, size) <= room:
        return text
    while text and text_width(text + "...", size) > room:
        text = text[:-1]
    return text + "..."
