"""Grids and images of observations, cell by cell."""

from typing import Any

import jax
import numpy as np

EMPTY, GAP = (26, 28, 37), (18, 19, 26)  # colors of an empty cell, and of the lines between cells
CHANNEL_COLORS = (
    (240, 236, 224), (240, 160, 75), (92, 108, 138), (82, 168, 154), (224, 96, 96), (140, 120, 205),
    (96, 152, 222), (118, 130, 88), (222, 132, 180), (170, 200, 96), (120, 88, 72), (66, 186, 208),
)  # fmt: skip
DEFAULT_SYMBOLS = "@o.#x$+*%&=~"  # one symbol a channel, for environments not listed below
CHANNEL_SYMBOLS = {
    "Asterix-MinAtar": "@x.$",
    "Breakout-MinAtar": "=o.#",
    "Catch-bsuite": "=o",
    "Freeway-MinAtar": "@x.....",
    "Pong-misc": "#o.",
    "Seaquest-MinAtar": "@=-.!xS~+d",
    "SpaceInvaders-MinAtar": "@x<>|!",
}
SIDE = 320  # pixels of the longer side of a frame
PHOTO = 24  # uint8 arrays of at least this height and width are images, also if they are 0 and 1


def image_of(obs: Any) -> np.ndarray | None:
    """Returns the array of an observation to draw as an image: the largest `[H, W, C]` of a tree.

    Of an observation that is one array, `[H, W]` is also an image.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(obs)]
    if len(leaves) == 1 and leaves[0].ndim == 2:
        leaves = [leaves[0][..., None]]
    images = [leaf for leaf in leaves if leaf.ndim == 3 and min(leaf.shape[:2]) > 1]
    return max(images, key=lambda leaf: leaf.size) if images else None


def grid_of(obs: Any, state: Any = None) -> np.ndarray | None:
    """Returns the observation as cells, bool `[H, W, C]`, as an image `[H, W, 3]`, or None."""
    image = image_of(obs)
    if image is None:
        return None
    is_photo = image.dtype == np.uint8 and min(image.shape[:2]) >= PHOTO
    if not is_photo and np.isin(image, (0, 1)).all():
        is_catch = hasattr(state, "paddle_x")
        return _catch_channels(state, image > 0) if is_catch else image > 0
    if image.shape[-1] not in (1, 3):
        if not is_photo:
            return (image > 0) & (image == image.max(axis=-1, keepdims=True))
        colors = 3 if image.shape[-1] % 3 == 0 else 1  # the last of several frames
        image = image[..., -colors:]
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = (255 * (image - low) / max(high - low, 1e-9)).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _catch_channels(state: Any, obs: np.ndarray) -> np.ndarray:
    """Separates paddle and ball of Catch, which observes both in one channel."""
    paddle = np.zeros_like(obs)
    paddle[int(state.paddle_y), int(state.paddle_x)] = True
    return np.concatenate([paddle, obs & ~paddle], axis=-1)


def draw_cells(grid: np.ndarray) -> np.ndarray:
    """Draws each cell of `grid_of` as a square in the color of its first channel that is on."""
    if grid.dtype != bool:
        return enlarge(grid)
    colors = np.array(CHANNEL_COLORS, np.uint8)[grid.argmax(axis=-1) % len(CHANNEL_COLORS)]
    colors = np.where(grid.any(axis=-1, keepdims=True), colors, np.array(EMPTY, np.uint8))
    frame, side = enlarge(colors), max(1, SIDE // max(grid.shape[:2]))
    if side >= 6:
        frame[::side] = frame[:, ::side] = GAP
    return frame


def enlarge(image: Any, longer_side: int = SIDE) -> np.ndarray:
    """Repeats the pixels of an image `[H, W, C]` until its longer side has about this length."""
    image = np.asarray(image)
    side = max(1, longer_side // max(image.shape[:2]))
    return np.repeat(np.repeat(image, side, axis=0), side, axis=1)


def grid_text(name: str, grid: np.ndarray) -> str | None:
    """Returns cells of `grid_of` as text, one character a cell; None for an image."""
    if grid.dtype != bool:
        return None
    symbols = CHANNEL_SYMBOLS.get(name) or DEFAULT_SYMBOLS
    channel = np.minimum(grid.argmax(axis=-1), len(symbols) - 1)  # the first channel that is on
    channel = np.where(grid.any(axis=-1), channel, len(symbols))
    rows = ["|" + "".join(row) + "|" for row in np.array([*symbols, " "])[channel]]
    edge = "+" + "-" * grid.shape[1] + "+"
    return "\n".join([edge, *rows, edge])
