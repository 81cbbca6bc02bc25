"""Gridworlds drawn as text: the environment and its exact model.

A drawing becomes one table of all outcomes of every action in every cell. Both `step` and
`model_of` are computed from that table. States are cells, `row * width + column`, including walls
and terminal cells.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rljax.envs.resets import Persistent
from rljax.envs.wrappers import time_limit
from rljax.ops import random
from rljax.ops.planning import Model
from rljax.types import Array, Env, EnvSpec, Step

MOVES = {  # (rows down, columns right)
    "up": (-1, 0), "down": (1, 0), "right": (0, 1), "left": (0, -1), "stay": (0, 0),
    "up right": (-1, 1), "down right": (1, 1), "down left": (1, -1), "up left": (-1, -1),
}  # fmt: skip
FOUR_MOVES = ("up", "down", "right", "left")
KINGS_MOVES = (*FOUR_MOVES, "up right", "down right", "down left", "up left")
KINGS_MOVES_OR_STAY = (*KINGS_MOVES, "stay")
START, WALL, GOALS, PIT, REVERSED, AGENT = "S", "#", "GT", "X", "<", "o"


class Grid(NamedTuple):
    """A gridworld drawn as text, one character per cell.

    `S` is the start cell, `#` a wall, `G` or `T` a goal, `X` a pit, `<` a cell in which all moves
    are reversed; every other character is a free cell. A move into a wall or off the grid has no
    effect. Goals are terminal.

    Attributes:
      drawing: rows of equal length.
      moves: the actions, names in `MOVES`.
      step_reward: reward of a step into a free cell.
      goal_reward: reward of a step into a goal.
      pit_reward: reward of a step into a pit.
      pit_terminates: pits are terminal; otherwise the agent returns to the start cell.
      turns: pairs of a probability and the number of quarter turns by which a move is rotated.
      wind: for each column, the number of cells that the wind shifts the agent up when it leaves.
      stochastic_wind: the wind varies by -1, 0 or 1 with probability 1/3 each, where it blows.
      changed_drawing: the drawing after `change_at` environment steps, counted over episodes.
      change_at: see `changed_drawing`.
    """

    drawing: tuple[str, ...]
    moves: tuple[str, ...] = FOUR_MOVES
    step_reward: float = 0.0
    goal_reward: float = 1.0
    pit_reward: float = -1.0
    pit_terminates: bool = True
    turns: tuple[tuple[float, int], ...] = ((1.0, 0),)
    wind: tuple[int, ...] = ()
    stochastic_wind: bool = False
    changed_drawing: tuple[str, ...] = ()
    change_at: int = 0

    @property
    def initial_drawing(self) -> tuple[str, ...]:
        """The drawing at the first step."""
        is_changed = self.changed_drawing and not self.change_at
        return self.changed_drawing if is_changed else self.drawing

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self.drawing), len(self.drawing[0])


class World(NamedTuple):
    """A grid with an observation and a time limit.

    Attributes:
      grid: the grid.
      observation: "state", "features" or "nothing", see `env_of`.
      max_episode_steps: time limit, 0 for none.
    """

    grid: Grid
    observation: str = "state"
    max_episode_steps: int = 0


class Outcomes(NamedTuple):
    """All possible outcomes of every action in every state, `[S, A, K]`."""

    probability: np.ndarray
    next_state: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


class GridState(NamedTuple):
    """The state of a gridworld.

    Attributes:
      cell: the cell of the agent, int32.
      clock: environment steps over all episodes, `Persistent(int32)`; () if the grid never changes.
    """

    cell: Array
    clock: Any = ()


def outcomes(grid: Grid, drawing: tuple[str, ...]) -> Outcomes:
    """Returns the outcomes of every action in every cell; terminal cells are never left."""
    cells, (height, width) = "".join(drawing), grid.shape
    wind = grid.wind or (0,) * width
    no_gusts = ((0.0, 0), (1.0, 0), (0.0, 0))  # padded to as many outcomes as with gusts
    gusts = ((1 / 3, -1), (1 / 3, 0), (1 / 3, 1))
    rows = []
    for cell, kind in enumerate(cells):
        row, column = divmod(cell, width)
        is_terminal = kind in GOALS or (kind == PIT and grid.pit_terminates)
        cell_gusts = ((1.0, 0),)
        if grid.stochastic_wind:
            cell_gusts = gusts if wind[column] else no_gusts
        for move in grid.moves:
            for turn_probability, num_turns in grid.turns:
                down, right = MOVES[move]
                for _ in range(num_turns + 2 * (kind == REVERSED)):
                    down, right = right, -down
                for gust_probability, gust in cell_gusts:
                    target = min(max(row + down - wind[column] - gust, 0), height - 1) * width
                    target += min(max(column + right, 0), width - 1)
                    target = cell if cells[target] == WALL or is_terminal else target
                    probability = turn_probability * gust_probability
                    rows.append((probability, *_arrival(grid, cells, target, is_terminal)))
    probability, next_state, reward, terminated = zip(*rows, strict=True)
    shape = (len(cells), len(grid.moves), -1)
    return Outcomes(
        np.reshape(np.asarray(probability, np.float64), shape),
        np.reshape(np.asarray(next_state, np.int32), shape),
        np.reshape(np.asarray(reward, np.float64), shape),
        np.reshape(np.asarray(terminated, bool), shape),
    )


def _arrival(grid: Grid, cells: str, target: int, is_terminal: bool) -> tuple[int, float, bool]:
    """Returns the next state, the reward and the termination of a step into a target cell."""
    if is_terminal:
        return target, 0.0, True
    if cells[target] in GOALS:
        return target, grid.goal_reward, True
    if cells[target] == PIT:
        next_state = target if grid.pit_terminates else cells.index(START)
        return next_state, grid.pit_reward, grid.pit_terminates
    return target, grid.step_reward, False


def model_of(grid: Grid) -> Model:
    """Returns the exact model of a grid in float64, with its initial drawing if it changes."""
    table = outcomes(grid, grid.initial_drawing)
    num_states, num_actions, _ = table.probability.shape
    transition = np.zeros((num_states, num_actions, num_states))
    termination = np.zeros_like(transition)
    state, action, _ = np.ogrid[:num_states, :num_actions, :1]
    index = (state, action, table.next_state)
    np.add.at(transition, index, table.probability)
    np.add.at(termination, index, table.probability * table.terminated)
    start = np.zeros(num_states)
    start["".join(grid.initial_drawing).index(START)] = 1.0
    terminated = np.divide(
        termination, transition, out=np.zeros_like(termination), where=transition > 0
    )
    return Model(transition, (table.probability * table.reward).sum(axis=-1), terminated, start)


def text_of(grid: Grid, cell: int, changed: bool = False) -> str:
    """Returns the drawing with the agent in a cell."""
    drawing = grid.changed_drawing if changed else grid.initial_drawing
    width = grid.shape[1]
    free = "-" if "-" in drawing[0] else "."
    cells = list("".join(drawing).replace(START, free))
    cells[cell] = AGENT
    return "\n".join("".join(cells[i : i + width]) for i in range(0, len(cells), width))


def env_of(world: World, env_id: str = "Grid") -> Env:
    """Makes the environment of a world; its `step` does not reset.

    Observations are, by `world.observation`, "state": the index of the cell, int32; "features": the
    column and row relative to the goal, divided by width and height, `[2]`; "nothing": always 0.
    The noise of a step is one uniform number `[1]`, or `[0]` if the grid is deterministic.
    """
    grid = world.grid
    changes = bool(grid.changed_drawing and grid.change_at)
    drawings = (grid.drawing, grid.changed_drawing) if changes else (grid.initial_drawing,)
    tables = [outcomes(grid, drawing) for drawing in drawings]
    num_states, num_actions, num_outcomes = tables[0].probability.shape
    next_state, reward, terminated = (
        np.stack([getattr(table, name) for table in tables]).ravel()
        for name in ("next_state", "reward", "terminated")
    )
    cumulative = np.cumsum(np.stack([table.probability for table in tables]), axis=-1)
    cumulative = cumulative.reshape(-1, num_outcomes)[:, :-1].astype(np.float32)
    start = "".join(grid.initial_drawing).index(START)
    spec, observations = _observations(world)
    spec = spec._replace(num_actions=num_actions, env_id=env_id)

    def sample_noise(key, num_steps):
        return random.uniform(key, (num_steps, min(num_outcomes - 1, 1)))

    def reset(key):
        del key
        clock = Persistent(jnp.int32(0)) if changes else ()
        return GridState(jnp.int32(start), clock), jnp.asarray(observations[start])

    def step(state, action, noise):
        row = state.cell * num_actions + jnp.asarray(action, jnp.int32)
        clock = state.clock
        if changes:
            row = row + num_states * num_actions * (clock.value >= grid.change_at)
            clock = Persistent(clock.value + 1)
        if num_outcomes > 1:
            outcome = (noise >= jnp.asarray(cumulative)[row]).sum().astype(jnp.int32)
            row = row * num_outcomes + outcome
        next_cell = jnp.asarray(next_state)[row]
        next_grid_state = GridState(next_cell, clock)
        # `rljax watch` shows the state reached, which `auto_reset` replaces at the end
        info: dict[str, Any] = {"next_state": next_grid_state}
        obs, is_terminal = jnp.asarray(observations)[next_cell], jnp.asarray(terminated)[row]
        gain = jnp.asarray(reward, jnp.float32)[row]
        return next_grid_state, Step(obs, gain, is_terminal, jnp.zeros((), bool), obs, info)

    def render(state):
        return text_of(grid, int(state.cell), changes and state.clock.value >= grid.change_at)

    env = Env(spec, reset, step, sample_noise, render)
    return time_limit(env, world.max_episode_steps) if world.max_episode_steps else env


def _observations(world: World) -> tuple[EnvSpec, np.ndarray]:
    """Returns the spec, without actions, and the observation of every state."""
    grid, (height, width) = world.grid, world.grid.shape
    num_states = height * width
    if world.observation == "state":
        changes = grid.changed_drawing and grid.change_at
        spec = EnvSpec(num_states=num_states, model=None if changes else model_of(grid))
        return spec, np.arange(num_states, dtype=np.int32)
    if world.observation == "nothing":
        return EnvSpec(num_states=1), np.zeros(num_states, np.int32)
    cells = enumerate("".join(grid.initial_drawing))
    goal = next(cell for cell, kind in cells if kind in GOALS)
    row, column = np.divmod(np.arange(num_states), width)
    features = [(column - goal % width) / width, (row - goal // width) / height]
    return EnvSpec(obs_shape=(2,)), np.stack(features, axis=1).astype(np.float32)
