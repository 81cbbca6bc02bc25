"""Worlds on a grid, each from one drawing in text: the environment, and its exact model.

A drawing becomes one table of all that a step may lead to, out of which come both `step` and
`model_of`. States are cells, `row * width + column`, walls and ends among them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs.wrappers import Lasting, time_limit
from rljax.ops.planning import Model
from rljax.types import Array, Env, EnvSpec, Step

MOVES = {  # rows grow downwards
    "up": (-1, 0), "down": (1, 0), "right": (0, 1), "left": (0, -1), "stay": (0, 0),
    "up right": (-1, 1), "down right": (1, 1), "down left": (1, -1), "up left": (-1, -1),
}  # fmt: skip
FOUR = ("up", "down", "right", "left")
EIGHT = (*FOUR, "up right", "down right", "down left", "up left")
NINE = (*EIGHT, "stay")
START, WALL, GOALS, PIT, REVERSED, AGENT = "S", "#", "GT", "X", "<", "o"


class Grid(NamedTuple):
    """A world drawn in text, a character a cell.

    `S` is where episodes begin, `#` a wall, `G` or `T` a goal, `X` a pit; on `<` every move goes
    the other way; all else is free. Who would leave the grid or enter a wall stays where he is.
    """

    drawing: tuple[str, ...]
    moves: tuple[str, ...] = FOUR  # the actions
    reward: float = 0.0  # of a step
    goal: float = 1.0  # of a step into a goal, instead
    pit: float = -1.0  # of a step into a pit, instead
    pit_ends: bool = True  # the episode; False: it goes on at the start
    turns: tuple[tuple[float, int], ...] = ((1.0, 0),)  # chance of a move so many quarters off
    wind: tuple[int, ...] = ()  # by how many cells each column blows upwards those who leave it
    gusts: bool = False  # a third of the time by one more, a third of the time by one less
    later: tuple[str, ...] = ()  # what the drawing turns into ...
    change_at: int = 0  # ... after so many steps, over all episodes

    @property
    def now(self) -> tuple[str, ...]:
        """The drawing in which the first step is taken."""
        return self.later if self.later and not self.change_at else self.drawing

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.drawing), len(self.drawing[0])


class World(NamedTuple):
    """A grid and how it is played."""

    grid: Grid
    observes: str = "state"  # or its "features", or "nothing"
    max_episode_steps: int = 0


class Outcomes(NamedTuple):
    """All that a step may lead to, `[S, A, K]`."""

    probability: np.ndarray
    next_state: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


class Place(NamedTuple):
    """The state of a world."""

    cell: Array  # int32
    clock: Any = ()  # Lasting(int32), the steps of all episodes, where the world changes


def outcomes(grid: Grid, drawing: tuple[str, ...]) -> Outcomes:
    """What every action may lead to in every cell. An end, once reached, is never left."""
    cells, (height, width) = "".join(drawing), grid.shape
    wind = grid.wind or (0,) * width
    calm, gusty = (((0.0, 0), (1.0, 0), (0.0, 0)), ((1 / 3, -1), (1 / 3, 0), (1 / 3, 1)))
    rows = []
    for cell, kind in enumerate(cells):
        row, column = divmod(cell, width)
        ended = kind in GOALS or (kind == PIT and grid.pit_ends)
        gusts = (gusty if wind[column] else calm) if grid.gusts else ((1.0, 0),)
        for move in grid.moves:
            for chance, turn in grid.turns:
                down, right = MOVES[move]
                for _ in range(turn + 2 * (kind == REVERSED)):
                    down, right = right, -down
                for strength, gust in gusts:
                    there = min(max(row + down - wind[column] - gust, 0), height - 1) * width
                    there += min(max(column + right, 0), width - 1)
                    there = cell if cells[there] == WALL or ended else there
                    rows.append((chance * strength, *_arrival(grid, cells, there, ended)))
    probability, next_state, reward, terminated = zip(*rows, strict=True)
    shape = (len(cells), len(grid.moves), -1)
    return Outcomes(
        np.reshape(np.asarray(probability, np.float64), shape),
        np.reshape(np.asarray(next_state, np.int32), shape),
        np.reshape(np.asarray(reward, np.float64), shape),
        np.reshape(np.asarray(terminated, bool), shape),
    )


def _arrival(grid: Grid, cells: str, there: int, ended: bool) -> tuple[int, float, bool]:
    """Where a step into a cell leads, its reward, and whether the episode is over."""
    if ended:
        return there, 0.0, True
    if cells[there] in GOALS:
        return there, grid.goal, True
    if cells[there] == PIT:
        return there if grid.pit_ends else cells.index(START), grid.pit, grid.pit_ends
    return there, grid.reward, False


def model_of(grid: Grid) -> Model:
    """The exact model of a grid, float64; of one that changes, as it is in the first step."""
    table = outcomes(grid, grid.now)
    num_states, num_actions, _ = table.probability.shape
    transition = np.zeros((num_states, num_actions, num_states))
    ends = np.zeros_like(transition)
    state, action, _ = np.ogrid[:num_states, :num_actions, :1]
    place = (state, action, table.next_state)
    np.add.at(transition, place, table.probability)
    np.add.at(ends, place, table.probability * table.terminated)
    start = np.zeros(num_states)
    start["".join(grid.now).index(START)] = 1.0
    terminated = np.divide(ends, transition, out=np.zeros_like(ends), where=transition > 0)
    return Model(transition, (table.probability * table.reward).sum(axis=-1), terminated, start)


def text_of(grid: Grid, cell: int, changed: bool = False) -> str:
    """The drawing, with the agent in a cell."""
    drawing = grid.later if changed else grid.now
    width = grid.shape[1]
    ground = "-" if "-" in drawing[0] else "."
    cells = list("".join(drawing).replace(START, ground))
    cells[cell] = AGENT
    return "\n".join("".join(cells[i : i + width]) for i in range(0, len(cells), width))


def env_of(world: World, env_id: str = "Grid") -> Env:
    """An environment that does not reset, of a grid.

    Observes the state, an int32, or "features": how far right of and below the goal the agent
    stands, in widths and heights of the grid, `[2]`; or "nothing": 0 in every state. One uniform
    number a step is drawn ahead where there is chance, and none where there is none.
    """
    grid = world.grid
    changes = bool(grid.later and grid.change_at)
    drawings = (grid.drawing, grid.later) if changes else (grid.now,)
    tables = [outcomes(grid, drawing) for drawing in drawings]
    num_states, num_actions, num_outcomes = tables[0].probability.shape
    next_state, reward, terminated = (
        np.stack([getattr(table, name) for table in tables]).ravel()
        for name in ("next_state", "reward", "terminated")
    )
    probability = np.stack([table.probability for table in tables])
    below = np.cumsum(probability, axis=-1).reshape(-1, num_outcomes)[:, :-1].astype(np.float32)
    start = "".join(grid.now).index(START)
    spec = EnvSpec(num_actions=num_actions, num_states=num_states, env_id=env_id)
    if world.observes == "state":
        observations = np.arange(num_states, dtype=np.int32)
        spec = spec._replace(model=None if changes else model_of(grid))
    elif world.observes == "features":
        observations = _features(grid).astype(np.float32)
        spec = spec._replace(obs_shape=(2,), num_states=0)
    else:
        observations = np.zeros(num_states, np.int32)
        spec = spec._replace(num_states=1)

    def sample_noise(key, num_steps):
        return jax.random.uniform(key, (num_steps, min(num_outcomes - 1, 1)))

    def reset(key):
        del key
        clock = Lasting(jnp.int32(0)) if changes else ()
        return Place(jnp.int32(start), clock), jnp.asarray(observations[start])

    def step(place, action, noise):
        row = place.cell * num_actions + jnp.asarray(action, jnp.int32)
        clock = place.clock
        if changes:
            row = row + num_states * num_actions * (clock.value >= grid.change_at)
            clock = Lasting(clock.value + 1)
        if num_outcomes > 1:
            row = row * num_outcomes + (noise >= jnp.asarray(below)[row]).sum().astype(jnp.int32)
        there = jnp.asarray(next_state)[row]
        reached = Place(there, clock)
        obs, ends = jnp.asarray(observations)[there], jnp.asarray(terminated)[row]
        gain = jnp.asarray(reward, jnp.float32)[row]
        # who watches an episode wants to see its end as well
        info: dict[str, Any] = {"reached": reached}
        return reached, Step(obs, gain, ends, jnp.zeros((), bool), obs, info)

    def render(place):
        return text_of(grid, int(place.cell), changes and place.clock.value >= grid.change_at)

    made = Env(spec, reset, step, sample_noise, render)
    return time_limit(made, world.max_episode_steps) if world.max_episode_steps else made


def _features(grid: Grid) -> np.ndarray:
    """`[S, 2]`: columns and rows from the goal, over width and height."""
    height, width = grid.shape
    goal = next(i for i, kind in enumerate("".join(grid.now)) if kind in GOALS)
    row, column = np.divmod(np.arange(height * width), width)
    return np.stack([(column - goal % width) / width, (row - goal // width) / height], axis=1)
