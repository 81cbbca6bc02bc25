"""The worlds of the tutorial notes, and those of the textbooks, with their exact models.

Treasure and the two mazes are the notes'; the others are Sutton and Barto's (2018, examples 6.5,
6.6, 7.1, 8.1 to 8.3, 13.1; in their stochastic forms as well), and FrozenLake is gymnasium's.
Actions are up, down, right, left, in that order; in a row left, right; in FrozenLake left, down,
right, up, as gymnasium has them.
"""

import inspect
from collections.abc import Callable
from typing import Any

from rljax.config import convert, unknown_key
from rljax.envs.grids import EIGHT, FOUR, NINE, START, Grid, World, env_of, model_of
from rljax.ops.planning import Model
from rljax.types import Env


def _slipping(slip: float) -> tuple[tuple[float, int], ...]:
    """A move that goes at a right angle now and then, to either side."""
    if not 0 <= slip <= 1:
        raise ValueError(f"`slip` is {slip}, but it is a chance: it must be from 0 to 1.")
    return ((1 - slip, 0), (slip / 2, 1), (slip / 2, 3)) if slip else ((1.0, 0),)


def _whole(name: str, value: int, low: int) -> int:
    if value < low:
        raise ValueError(f"`{name}` is {value}, but it must be at least {low}.")
    return value


# Each takes its parameters by name; their defaults give their types.


def treasure(*, length: int = 6) -> World:
    """A row with the treasure at its right end, +1."""
    drawing = START + "-" * (_whole("length", length, 2) - 2) + "T"
    return World(Grid((drawing,), ("left", "right")))


def maze(*, slip: float = 0.0, features: bool = False) -> World:
    """Paradise, +1, between two pits, -1."""
    drawing = ("S...", "..X.", ".XG.", "....")
    return World(Grid(drawing, turns=_slipping(slip)), "features" if features else "state")


def maze_dqn(*, slip: float = 0.0, features: bool = True) -> World:
    """The maze with one pit alone; observes where the agent is from paradise."""
    drawing = ("S...", "..X.", "..G.", "....")
    return World(Grid(drawing, turns=_slipping(slip)), "features" if features else "state")


def cliff_walking(*, slip: float = 0.0) -> World:
    """-1 a step; -100 down the cliff, and on from the start."""
    drawing = (*["." * 12] * 3, "S" + "X" * 10 + "G")
    grid = Grid(drawing, reward=-1.0, goal=-1.0, pit=-100.0, pit_ends=False, turns=_slipping(slip))
    return World(grid)


def windy_gridworld(*, moves: int = 4, gusts: bool = False) -> World:
    """-1 a step, in a wind; `moves` 8 are a king's, and 9 with staying; `gusts` vary the wind."""
    if moves not in (4, 8, 9):
        raise ValueError(f"`moves` is {moves}, but it must be 4, 8 (diagonal too) or 9 (and stay).")
    drawing = (*["." * 10] * 3, "S......G..", *["." * 10] * 3)
    kinds = {4: FOUR, 8: EIGHT, 9: NINE}[moves]
    wind = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)
    return World(Grid(drawing, kinds, reward=-1.0, goal=-1.0, wind=wind, gusts=gusts))


def dyna_maze(*, slip: float = 0.0) -> World:
    """+1 at the goal; 14 steps away at best."""
    drawing = (".......#G", "..#....#.", "S.#....#.", "..#......", ".....#...", ".........")
    return World(Grid(drawing, turns=_slipping(slip)))


def _barred(bar: str) -> tuple[str, ...]:
    return ("........G", ".........", ".........", bar, ".........", "...S.....")


def blocking_maze(*, change_at: int = 1000) -> World:
    """After `change_at` steps the gap on the right closes and one on the left opens."""
    now, later = _barred("########."), _barred(".########")
    return World(Grid(now, later=later, change_at=_whole("change_at", change_at, 0)))


def shortcut_maze(*, change_at: int = 3000) -> World:
    """After `change_at` steps a second gap opens on the right, which makes a shorter way."""
    now, later = _barred(".########"), _barred(".#######.")
    return World(Grid(now, later=later, change_at=_whole("change_at", change_at, 0)))


def random_walk(*, length: int = 19, left: float = -1.0, right: float = 1.0) -> World:
    """A row that is walked at random from its middle, whatever the one action; ends at both ends.

    The states to learn are 1 to `length`; 0 and `length + 1` are the ends.
    """
    if _whole("length", length, 1) % 2 == 0:
        raise ValueError(
            f"`length` is {length}, but it must be odd: the walk begins in the middle."
        )
    half = "-" * (length // 2)
    grid = Grid((f"X{half}S{half}G",), ("right",), goal=right, pit=left, turns=((0.5, 0), (0.5, 2)))
    return World(grid)


def short_corridor(*, observed: bool = False) -> World:
    """-1 a step; moves are reversed in the second of three states, which all look alike."""
    grid = Grid(("S<-G",), ("left", "right"), reward=-1.0, goal=-1.0)
    return World(grid, "state" if observed else "nothing")


LAKE = ("S...", ".X.X", "...X", "X..G")
LAKE_8X8 = (
    "S.......", "........", "...X....", ".....X..", "...X....", ".XX...X.", ".X..X.X.", "...X...G",
)  # fmt: skip


def _lake(drawing: tuple[str, ...], slip: float, max_episode_steps: int) -> World:
    moves = ("left", "down", "right", "up")
    return World(
        Grid(drawing, moves, pit=0.0, turns=_slipping(slip)), max_episode_steps=max_episode_steps
    )


def frozen_lake(*, slip: float = 2 / 3) -> World:
    """+1 across the ice, with holes; two of three moves slip."""
    return _lake(LAKE, slip, 100)


def frozen_lake_8x8(*, slip: float = 2 / 3) -> World:
    """The larger lake."""
    return _lake(LAKE_8X8, slip, 200)


WORLDS: dict[str, Callable[..., World]] = {
    "Treasure": treasure, "Maze": maze, "MazeDQN": maze_dqn, "CliffWalking": cliff_walking,
    "WindyGridworld": windy_gridworld, "DynaMaze": dyna_maze, "BlockingMaze": blocking_maze,
    "ShortcutMaze": shortcut_maze, "RandomWalk": random_walk, "ShortCorridor": short_corridor,
    "FrozenLake": frozen_lake, "FrozenLake8x8": frozen_lake_8x8,
}  # fmt: skip


def registered() -> list[str]:
    """The names of all worlds."""
    return list(WORLDS)


def from_id(name: str, **params: Any) -> Env:
    """A world as an `Env` that does not reset; `max_episode_steps` is its time limit.

    Raises:
      ValueError: a parameter that the world does not have, or a value that it cannot have.
    """
    return env_of(world_of(name, **params), f"rljax/{name}")


def world_of(env_id: str, **params: Any) -> World:
    """The description of a world, by its id."""
    name = env_id.removeprefix("rljax/")
    if name not in WORLDS:
        raise ValueError(f"there is no world `{env_id}`: there are {', '.join(WORLDS)}.")
    maker = WORLDS[name]
    limit = params.pop("max_episode_steps", None)
    defaults = {
        key: parameter.default for key, parameter in inspect.signature(maker).parameters.items()
    }
    for key in params:
        if key not in defaults:
            raise unknown_key(key, [*defaults, "max_episode_steps"], f"rljax/{name}")
    read = {key: convert(key, value, type(defaults[key])) for key, value in params.items()}
    world = maker(**read)
    return world if limit is None else world._replace(max_episode_steps=limit)


def model(env_id: str, **params: Any) -> Model:
    """The exact model of a world, float64: of its states, whatever the agent may observe.

    Mazes that change are as they are before they do; with `change_at=0`, as they are after.
    """
    return model_of(world_of(env_id, **params).grid)
