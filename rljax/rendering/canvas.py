"""A canvas in the coordinates of a scene, and the colors of all frames."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Point = tuple[float, float]

BACKGROUND, INK, FAINT = (250, 249, 246), (52, 58, 72), (221, 219, 212)
BLUE, ORANGE, GREEN, HILL = (66, 106, 158), (231, 126, 73), (67, 153, 116), (222, 228, 216)
TILE = (236, 234, 228)


class Canvas:
    """An image in coordinates of the scene, y upwards.

    It is drawn at three times its size and then scaled down, which smooths the edges.
    """

    SUPERSAMPLING = 3

    def __init__(self, size: tuple[int, int], left: float, bottom: float, width: float) -> None:
        from PIL import Image, ImageDraw

        pixels = size[0] * self.SUPERSAMPLING, size[1] * self.SUPERSAMPLING
        self.scale = pixels[0] / width  # pixels per unit
        self.left, self.top = left, bottom + pixels[1] / self.scale
        self.image = Image.new("RGB", pixels, BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)

    def _pixel(self, point: Point) -> Point:
        return (point[0] - self.left) * self.scale, (self.top - point[1]) * self.scale

    def polygon(self, points: Sequence[Point], color: tuple) -> None:
        """Draws a filled polygon."""
        self.draw.polygon([self._pixel(point) for point in points], fill=color)

    def disc(self, center: Point, radius: float, color: tuple) -> None:
        """Draws a filled circle."""
        x, y = self._pixel(center)
        r = radius * self.scale
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=color)

    def line(self, points: Sequence[Point], width: float, color: tuple) -> None:
        """Draws a line with round ends and joints."""
        pixels = [self._pixel(point) for point in points]
        self.draw.line(pixels, fill=color, width=max(1, round(width * self.scale)), joint="curve")
        for end in (points[0], points[-1]):
            self.disc(end, width / 2, color)

    def text(
        self, point: Point, text: str, size: float = 13, color: tuple = INK, anchor: str = "mm"
    ) -> None:  # fmt: skip
        """Writes one line.

        Args:
          point: where the anchor of the text is.
          text: the line.
          size: size of the font in pixels of the final frame.
          color: its color.
          anchor: anchor of pillow: l, m or r for left, middle or right, and m or s for the middle
            or the baseline.
        """
        font = _font(round(size * self.SUPERSAMPLING))
        self.draw.text(self._pixel(point), text, color, font, anchor)

    def frame(self) -> np.ndarray:
        """Returns the image at its final size, uint8 `[H, W, 3]`."""
        return np.asarray(self.image.reduce(self.SUPERSAMPLING))


@functools.cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def text_width(text: str, size: float = 13) -> float:
    """Returns the width of a line in pixels of a frame."""
    return _font(round(size * Canvas.SUPERSAMPLING)).getlength(text) / Canvas.SUPERSAMPLING


def transform(points: Sequence[Point], to: Point, angle: float = 0.0) -> list[Point]:
    """Rotates points about the origin, counterclockwise, and translates them by `to`."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [(to[0] + cos * x - sin * y, to[1] + sin * x + cos * y) for x, y in points]


def rectangle(width: float, height: float) -> list[Point]:
    """Returns the corners of a rectangle centered at the origin."""
    x, y = width / 2, height / 2
    return [(-x, -y), (x, -y), (x, y), (-x, y)]
