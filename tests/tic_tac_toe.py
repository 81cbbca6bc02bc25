"""Exact minimax for tic-tac-toe in plain Python: the oracle of searches and of opponents.

A position is a tuple of nine cells: 0 is empty, 1 a stone of the player to act, 2 of the opponent.
"""

from functools import cache

LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


def is_lost(cells):
    """Whether the opponent has a line."""
    return any(all(cells[i] == 2 for i in line) for line in LINES)


def after(cells, move):
    """The position after a move, seen by the other player."""
    cells = (*cells[:move], 1, *cells[move + 1 :])
    return tuple((0, 2, 1)[cell] for cell in cells)


def moves(cells):
    return [i for i in range(9) if cells[i] == 0]


@cache
def value(cells):
    """The value of a position for the player to act, if both play perfectly: 1, 0 or -1."""
    if is_lost(cells):
        return -1
    return max((-value(after(cells, move)) for move in moves(cells)), default=0)


def best_moves(cells):
    """The moves that keep the value; none where the game is over."""
    if is_lost(cells):
        return set()
    return {move for move in moves(cells) if -value(after(cells, move)) == value(cells)}


@cache
def positions():
    """All positions that are reached when both players move in turn, also ends of games."""
    found, waiting = set(), [(0,) * 9]
    while waiting:
        cells = waiting.pop()
        if cells not in found:
            found.add(cells)
            waiting += [] if is_lost(cells) else [after(cells, move) for move in moves(cells)]
    return sorted(found)
