"""The suite `rljax`: worlds with exact models, continuous tasks, and games of two players.

The worlds are the examples 6.5, 6.6, 7.1, 8.1 to 8.3 and 13.1 of Sutton and Barto (2018), with
stochastic variants; FrozenLake of gymnasium; two mazes. Actions are up, down, right, left; in a
single row left, right; in FrozenLake left, down, right, up. `slip` is the probability that a move
is rotated by 90 degrees, to either side with equal probability. The continuous tasks are those of
`arms` and `car`, the games those of `board_games`.
"""

import inspect
from collections.abc import Callable
from typing import Any

from rljax.config import at_least, check_range, convert, suggestion, unknown_key
from rljax.envs import arms, board_games, car
from rljax.envs.grids import (
    FOUR_MOVES,
    KINGS_MOVES,
    KINGS_MOVES_OR_STAY,
    START,
    Grid,
    World,
    env_of,
    model_of,
)
from rljax.envs.wrappers import time_limit
from rljax.ops.planning import Model
from rljax.types import Env


def _slip_turns(slip: float) -> tuple[tuple[float, int], ...]:
    """Returns the `turns` of a grid whose moves slip with probability `slip`."""
    check_range("slip", slip, low=0, high=1)
    return ((1 - slip, 0), (slip / 2, 1), (slip / 2, 3)) if slip else ((1.0, 0),)


# The parameters of these functions are those of `rljax.make`; defaults define their types.


def treasure(*, length: int = 6) -> World:
    """A row of cells; +1 at the right end."""
    drawing = START + "-" * (at_least("length", length, 2) - 2) + "T"
    return World(Grid((drawing,), ("left", "right")))


def maze(*, slip: float = 0.0, features: bool = False) -> World:
    """A 4 x 4 grid; +1 at the goal, -1 in two terminal pits beside it."""
    drawing = ("S...", "..X.", ".XG.", "....")
    return World(Grid(drawing, turns=_slip_turns(slip)), "features" if features else "state")


def maze_dqn(*, slip: float = 0.0, features: bool = True) -> World:
    """A 4 x 4 grid with one terminal pit; observes the position relative to the goal."""
    drawing = ("S...", "..X.", "..G.", "....")
    return World(Grid(drawing, turns=_slip_turns(slip)), "features" if features else "state")


def cliff_walking(*, slip: float = 0.0) -> World:
    """Example 6.6: -1 per step; -100 in the cliff, which returns the agent to the start."""
    drawing = (*["." * 12] * 3, "S" + "X" * 10 + "G")
    grid = Grid(
        drawing, step_reward=-1.0, goal_reward=-1.0, pit_reward=-100.0, pit_terminates=False,
        turns=_slip_turns(slip),
    )  # fmt: skip
    return World(grid)


def windy_gridworld(*, moves: int = 4, gusts: bool = False) -> World:
    """Example 6.5: -1 per step, with an upward wind in some columns.

    Args:
      moves: 4; 8 for king's moves; 9 for king's moves and staying (exercise 6.9).
      gusts: the wind varies by -1, 0 or 1 with equal probability (exercise 6.10).
    """
    if moves not in (4, 8, 9):
        raise ValueError(
            f"`moves` is {moves}, but it must be 4, 8 (king's moves) or 9 (king's moves and "
            "staying)."
        )
    drawing = (*["." * 10] * 3, "S......G..", *["." * 10] * 3)
    move_names = {4: FOUR_MOVES, 8: KINGS_MOVES, 9: KINGS_MOVES_OR_STAY}[moves]
    grid = Grid(
        drawing, move_names, step_reward=-1.0, goal_reward=-1.0,
        wind=(0, 0, 0, 1, 1, 1, 2, 2, 1, 0), stochastic_wind=gusts,
    )  # fmt: skip
    return World(grid)


def dyna_maze(*, slip: float = 0.0) -> World:
    """Example 8.1: +1 at the goal, at least 14 steps from the start."""
    drawing = (".......#G", "..#....#.", "S.#....#.", "..#......", ".....#...", ".........")
    return World(Grid(drawing, turns=_slip_turns(slip)))


def _wall_maze(wall: str) -> tuple[str, ...]:
    return ("........G", ".........", ".........", wall, ".........", "...S.....")


def blocking_maze(*, change_at: int = 1000) -> World:
    """Example 8.2: after `change_at` steps the gap on the right closes, one on the left opens."""
    initial, changed = _wall_maze("########."), _wall_maze(".########")
    change_at = at_least("change_at", change_at, 0)
    return World(Grid(initial, changed_drawing=changed, change_at=change_at))


def shortcut_maze(*, change_at: int = 3000) -> World:
    """Example 8.3: after `change_at` steps a second gap opens, which allows a shorter path."""
    initial, changed = _wall_maze(".########"), _wall_maze(".#######.")
    change_at = at_least("change_at", change_at, 0)
    return World(Grid(initial, changed_drawing=changed, change_at=change_at))


def random_walk(*, length: int = 19, left: float = -1.0, right: float = 1.0) -> World:
    """Example 7.1: a row with one action, which moves left or right with probability 1/2.

    Episodes start in the middle. States 0 and `length + 1` are terminal; `left` and `right` are
    the rewards for reaching them.
    """
    if at_least("length", length, 1) % 2 == 0:
        raise ValueError(
            f"`length` is {length}, but it must be odd: episodes start in the middle state."
        )
    half = "-" * (length // 2)
    grid = Grid(
        (f"X{half}S{half}G",), ("right",), goal_reward=right, pit_reward=left,
        turns=((0.5, 0), (0.5, 2)),
    )  # fmt: skip
    return World(grid)


def short_corridor(*, observed: bool = False) -> World:
    """Example 13.1: -1 per step; the second of three states, which look alike, reverses actions."""
    grid = Grid(("S<-G",), ("left", "right"), step_reward=-1.0, goal_reward=-1.0)
    return World(grid, "state" if observed else "nothing")


LAKE = ("S...", ".X.X", "...X", "X..G")
LAKE_8X8 = (
    "S.......", "........", "...X....", ".....X..", "...X....", ".XX...X.", ".X..X.X.", "...X...G",
)  # fmt: skip


def _lake(drawing: tuple[str, ...], slip: float, max_episode_steps: int) -> World:
    moves = ("left", "down", "right", "up")
    grid = Grid(drawing, moves, pit_reward=0.0, turns=_slip_turns(slip))
    return World(grid, max_episode_steps=max_episode_steps)


def frozen_lake(*, slip: float = 2 / 3) -> World:
    """FrozenLake-v1 of gymnasium, 4 x 4: +1 at the goal, terminal holes."""
    return _lake(LAKE, slip, 100)


def frozen_lake_8x8(*, slip: float = 2 / 3) -> World:
    """FrozenLake8x8-v1 of gymnasium."""
    return _lake(LAKE_8X8, slip, 200)


WORLDS: dict[str, Callable[..., World]] = {
    "Treasure": treasure, "Maze": maze, "MazeDQN": maze_dqn, "CliffWalking": cliff_walking,
    "WindyGridworld": windy_gridworld, "DynaMaze": dyna_maze, "BlockingMaze": blocking_maze,
    "ShortcutMaze": shortcut_maze, "RandomWalk": random_walk, "ShortCorridor": short_corridor,
    "FrozenLake": frozen_lake, "FrozenLake8x8": frozen_lake_8x8,
}  # fmt: skip


CONTINUOUS_TASKS: dict[str, Callable[..., Env]] = {
    "Arm-easy": arms.arm_easy, "Arm-hard": arms.arm_hard, "TwoJointArm": arms.two_joint_arm,
    "Car2D": car.car_2d,
}  # fmt: skip


MAKERS: dict[str, Callable[..., Any]] = {**WORLDS, **CONTINUOUS_TASKS, **board_games.GAMES}


def registered() -> list[str]:
    """Returns the names of all environments in this suite."""
    return [*MAKERS]


def from_id(name: str, **params: Any) -> Env:
    """Returns an environment whose `step` does not reset; `max_episode_steps` is its time limit.

    Raises:
      ValueError: an unknown parameter, or a value out of range.
    """
    if name in CONTINUOUS_TASKS:
        return _call(name, params)
    if name in board_games.GAMES:
        limit = params.pop("max_episode_steps", None)
        env = _call(name, params)
        return env if limit is None else time_limit(env, limit)
    return env_of(world_of(name, **params), f"rljax/{name}")


def world_of(env_id: str, **params: Any) -> World:
    """Returns the grid, observation and time limit of an environment.

    Raises:
      ValueError: an unknown id or parameter, or a value out of range.
    """
    name = env_id.removeprefix("rljax/")
    if name not in WORLDS:
        raise ValueError(f"there is no world `{env_id}`: {suggestion(name, WORLDS)}")
    limit = params.pop("max_episode_steps", None)
    world = _call(name, params)
    return world if limit is None else world._replace(max_episode_steps=limit)


def parameters(name: str) -> dict[str, Any]:
    """Returns the parameters of an environment and their defaults."""
    found = inspect.signature(MAKERS[name]).parameters.items()
    return {key: parameter.default for key, parameter in found}


def _call(name: str, params: dict[str, Any]) -> Any:
    """Calls the maker of a name with parameters converted to the types of its defaults."""
    defaults = parameters(name)
    for key in params:
        if key not in defaults:
            known = {*defaults, "max_episode_steps"}
            if name in board_games.GAMES:
                known.add("opponent")  # which `make` takes
            raise unknown_key(key, known, f"rljax/{name}")
    converted = {key: convert(key, value, type(defaults[key])) for key, value in params.items()}
    return MAKERS[name](**converted)


def model(env_id: str, **params: Any) -> Model:
    """Returns the exact model of an environment in float64, for its states, not observations.

    The model of a maze that changes is that before the change, or after it with `change_at=0`.

    Example:
      >>> model("rljax/Maze").transition.shape
      (16, 4, 16)
    """
    return model_of(world_of(env_id, **params).grid)
