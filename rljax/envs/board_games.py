"""Board games of the suite `rljax`: tic-tac-toe and Connect Four, for two players in turns.

Observations and rewards are those of the player who acts (see `EnvSpec.num_players`). A move that
completes a line wins, +1; an illegal move loses, -1; a full board is a draw, 0. The games of pgx
have the same rules.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from rljax.types import Array, Env, EnvSpec, Key, Step


class Board(NamedTuple):
    """The state of a game.

    Attributes:
      stones: `[H, W, 2]` bool: those of the player to act, those of the opponent.
    """

    stones: Array


class Rules(NamedTuple):
    """A game in which two players place stones until one has a line of them.

    Attributes:
      height, width: size of the board, H and W.
      line: number of stones in a row, a column or a diagonal that wins.
      drops: a move is a column, in which the stone falls to the lowest empty cell; otherwise it
        is one of the H * W cells, row by row.
    """

    height: int
    width: int
    line: int
    drops: bool


TIC_TAC_TOE = Rules(3, 3, 3, drops=False)
CONNECT_FOUR = Rules(6, 7, 4, drops=True)


def has_line(stones: Array, length: int) -> Array:
    """Whether stones `[H, W]` hold a row, a column or a diagonal of `length`, bool `[]`.

    Example:
      >>> bool(has_line(jnp.eye(3, dtype=bool), 3))
      True
    """

    def along(rows, columns):
        """Lines whose next stone is `rows` below and `columns` to the right, or left."""
        shifted = [(i * rows, i * columns) for i in range(length)]
        height = stones.shape[0] - rows * (length - 1)
        width = stones.shape[1] - abs(columns) * (length - 1)
        if height < 1 or width < 1:
            return jnp.zeros((), bool)
        first = -min(0, columns) * (length - 1)
        parts = [stones[i : i + height, first + j : first + j + width] for i, j in shifted]
        return jnp.stack(parts).all(axis=0).any()

    return along(0, 1) | along(1, 0) | along(1, 1) | along(1, -1)


def game(rules: Rules, env_id: str) -> Env:
    """Returns a game as an `Env` whose `step` does not reset.

    Observations are `{"board": bool [H, W, 2], "legal": bool [A]}`. In a terminal state all moves
    are marked as legal.
    """
    height, width = rules.height, rules.width
    num_actions = width if rules.drops else height * width
    cells = jnp.arange(height * width).reshape(height, width)

    def legal_moves(stones):
        empty = ~stones.any(axis=-1)
        return empty[0] if rules.drops else empty.reshape(-1)

    def target(stones, action):
        """The cell of a move, `[H, W]` bool."""
        if not rules.drops:
            return cells == action
        row = (~stones[:, action].any(axis=-1)).sum() - 1  # the lowest empty one
        return cells == row * width + action

    def observe(stones, done):
        return {"board": stones, "legal": legal_moves(stones) | done}

    def reset(key):
        del key
        stones = jnp.zeros((height, width, 2), bool)
        return Board(stones), observe(stones, jnp.zeros((), bool))

    def step(state, action, noise):
        del noise
        stones = state.stones
        is_legal = legal_moves(stones)[action]
        own = stones[..., 0] | target(stones, action)
        wins = is_legal & has_line(own, rules.line)
        stones = jnp.where(is_legal, jnp.stack([stones[..., 1], own], axis=-1), stones[..., ::-1])
        done = wins | ~is_legal | stones.any(axis=-1).all()
        reward = jnp.where(is_legal, jnp.float32(wins), -1.0)
        obs = observe(stones, done)
        return Board(stones), Step(obs, reward, done, jnp.zeros_like(done), obs)

    spec = EnvSpec(
        obs_shape={"board": (height, width, 2), "legal": (num_actions,)},
        obs_dtype={"board": "bool", "legal": "bool"},
        num_actions=num_actions, action_mask="legal", num_players=2, env_id=env_id,
    )  # fmt: skip
    return Env(spec, reset, step, no_noise, render=text)


def no_noise(key: Key, num_steps: int) -> Array:
    """Returns the random numbers of steps without any, `[num_steps, 0]`."""
    del key
    return jnp.zeros((num_steps, 0))


def text(state: Board) -> str:
    """Returns a board as text: x for the player who began, o for the other, . for empty cells.

    Example:
      >>> env = tic_tac_toe()
      >>> state, _ = env.reset(None)
      >>> state, _ = env.step(state, 4, None)
      >>> print(text(state))
      . . .
      . x .
      . . .
    """
    return text_of(state.stones, began_acts=int(state.stones.sum()) % 2 == 0)


def text_of(stones: Array, began_acts: bool, indent: int = 0) -> str:
    """Returns stones `[H, W, 2]` as text.

    Args:
      stones: those of the player to act, and those of the opponent.
      began_acts: the player to act is the one who began.
      indent: columns by which each row is shifted to the right of the row above.

    Example:
      >>> print(text_of(jnp.eye(2, dtype=bool)[None], began_acts=False))
      o x
    """
    names = {(True, False): "xo"[not began_acts], (False, True): "xo"[began_acts]}
    acts, waits = stones[..., 0].tolist(), stones[..., 1].tolist()
    rows = (zip(*pair, strict=True) for pair in zip(acts, waits, strict=True))
    return "\n".join(
        " " * indent * i + " ".join(names.get(pair, ".") for pair in row)
        for i, row in enumerate(rows)
    )


def tic_tac_toe() -> Env:
    """Tic-tac-toe: three in a line on a 3 x 3 board; a move is a cell, 0 to 8, row by row."""
    return game(TIC_TAC_TOE, "rljax/TicTacToe")


def connect_four() -> Env:
    """Connect Four: four in a line on a board of 6 x 7; a move is a column, 0 to 6."""
    return game(CONNECT_FOUR, "rljax/ConnectFour")


GAMES: dict[str, Callable[[], Env]] = {"TicTacToe": tic_tac_toe, "ConnectFour": connect_four}
