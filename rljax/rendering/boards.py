"""Frames of two games whose packages have no renderer of images, or a slow one."""

import numpy as np

from rljax.rendering.canvas import FAINT, INK, TILE, Canvas, rectangle, transform
from rljax.rendering.scene import Scene

WALL, PELLET, PLAYER, SCARED = (40, 56, 140), (250, 214, 190), (255, 224, 40), (70, 110, 255)
GHOSTS = ((235, 64, 52), (250, 160, 220), (70, 220, 230), (250, 165, 50))


def board_of_2048(scene: Scene) -> np.ndarray:
    """Draws the board of 2048 of pgx."""
    exponents = np.asarray(scene.state._board).reshape(4, 4)
    canvas = Canvas((360, 360), -0.05, -0.05, 4.1)
    canvas.polygon([(-1, -1), (5, -1), (5, 5), (-1, 5)], FAINT)
    light, dark = np.array(TILE, float), np.array((231, 96, 52), float)
    for (row, column), exponent in np.ndenumerate(exponents):
        center = (column + 0.5, 3.5 - row)
        amount = min(int(exponent), 11) / 11
        color = tuple(int(x) for x in (1 - amount) * light + amount * dark)
        canvas.polygon(transform(rectangle(0.9, 0.9), center), color)
        if exponent:
            text = str(2 ** int(exponent))
            canvas.text(center, text, 34 if len(text) < 3 else 96 / len(text), INK)
    return canvas.frame()


def maze_of_pac_man(scene: Scene) -> np.ndarray:
    """Draws the maze of PacMan of jumanji: walls, pellets, the player and the ghosts."""
    state = scene.state
    passages = np.asarray(state.grid) > 0
    height, width = passages.shape
    canvas = Canvas((14 * width, 14 * height), 0, 0, width)
    canvas.polygon(transform(rectangle(width, height), (width / 2, height / 2)), (0, 0, 0))

    def center(row, column):
        return float(column) + 0.5, height - float(row) - 0.5

    for row, column in np.argwhere(~passages):
        canvas.polygon(transform(rectangle(1, 1), center(row, column)), WALL)
    for places, radius in ((state.pellet_locations, 0.12), (state.power_up_locations, 0.3)):
        for column, row in np.asarray(places):
            if row or column:  # eaten ones are at (0, 0)
                canvas.disc(center(row, column), radius, PELLET)
    player = state.player_locations
    canvas.disc(center(player.x, player.y), 0.48, PLAYER)
    is_scared = int(state.frightened_state_time) > 0
    for (column, row), color in zip(np.asarray(state.ghost_locations), GHOSTS, strict=True):
        x, y = center(row, column)
        color = SCARED if is_scared else color
        canvas.disc((x, y), 0.44, color)
        canvas.polygon(transform(rectangle(0.88, 0.44), (x, y - 0.22)), color)
        for side in (-0.18, 0.18):
            canvas.disc((x + side, y + 0.06), 0.12, (255, 255, 255))
    return canvas.frame()
