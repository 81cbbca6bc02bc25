"""Tic-tac-toe and Connect Four, compared with pgx; perfect play, from `opponents`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rljax
from rljax import envs
from rljax.envs import board_games
from rljax.envs.board_games import has_line

pytestmark = pytest.mark.usefixtures("quick_compiles")
NAMES = {"TicTacToe": "tic_tac_toe", "ConnectFour": "connect_four"}


def game(name):
    return board_games.GAMES[name]()


def play(name, moves) -> tuple[Any, Any]:
    """Returns the state after some moves, and the last step."""
    env, step = game(name), None
    state, _ = env.reset(jax.random.key(0))
    for move in moves:
        state, step = env.step(state, jnp.int32(move), jnp.zeros(0))
    return state, step


@pytest.mark.parametrize("name", NAMES)
def test_games_are_those_of_pgx(name):
    pgx = pytest.importorskip("pgx")
    env, other = game(name), pgx.make(NAMES[name])
    step, other_step = jax.jit(env.step), jax.jit(other.step)
    generator, outcomes = np.random.default_rng(0), set()
    with jax.numpy_rank_promotion("allow"):  # in pgx
        for i in range(40):
            (state, obs), wanted = env.reset(jax.random.key(i)), other.init(jax.random.key(i))
            result: Any = None
            while not wanted.terminated:
                np.testing.assert_array_equal(obs["board"], wanted.observation)
                np.testing.assert_array_equal(obs["legal"], wanted.legal_action_mask)
                action = generator.choice(np.flatnonzero(obs["legal"]))
                mover = int(wanted.current_player)
                state, result = step(state, action, jnp.zeros(0))
                wanted, obs = other_step(wanted, action), result.next_obs
                assert float(result.reward) == float(wanted.rewards[mover])
                assert bool(result.terminated) == bool(wanted.terminated)
            np.testing.assert_array_equal(obs["board"], wanted.observation)
            assert obs["legal"].all() and not result.truncated
            outcomes.add((float(result.reward), int(state.stones.sum()) % 2))
    # wins of both players, and in the small game a draw
    assert {(1.0, 0), (1.0, 1)} <= outcomes
    assert name == "ConnectFour" or (0.0, 1) in outcomes


@pytest.mark.parametrize("name", NAMES)
def test_an_illegal_move_loses_as_in_pgx(name):
    column = [0] * 6 if name == "ConnectFour" else [0]
    before, step = play(name, column)
    assert not step.terminated
    after, step = play(name, [*column, 0])
    assert float(step.reward) == -1 and step.terminated
    assert int(after.stones.sum()) == int(before.stones.sum())


def test_a_board_without_a_line_is_full_at_a_draw():
    state, step = play("TicTacToe", [0, 1, 2, 4, 3, 5, 7, 6, 8])
    assert step.terminated and float(step.reward) == 0 and state.stones.any(axis=-1).all()
    assert board_games.text(state) == "x o x\nx o o\no x x"


def test_the_last_move_can_win():
    assert float(play("TicTacToe", [0, 1, 2, 3, 4, 5, 7, 6, 8])[1].reward) == 1


def lines(height, width, length):
    """All lines of a board, from their definition."""
    steps = [(0, 1), (1, 0), (1, 1), (1, -1)]
    starts = np.ndindex(height, width)
    for row, column, (down, right) in ((*start, step) for start in starts for step in steps):
        line = [(row + i * down, column + i * right) for i in range(length)]
        if all(0 <= r < height and 0 <= c < width for r, c in line):
            yield line


@pytest.mark.parametrize(("height", "width", "length", "count"), [(3, 3, 3, 8), (6, 7, 4, 69)])
def test_a_line_needs_all_its_stones(height, width, length, count):
    found = list(lines(height, width, length))
    assert len(found) == count
    boards = np.zeros((count, 1 + length, height, width), bool)
    for board, line in zip(boards, found, strict=True):
        board[(slice(None), *np.transpose(line))] = True
        for i, cell in enumerate(line):
            board[(1 + i, *cell)] = False
    result = jax.vmap(jax.vmap(lambda x: has_line(x, length)))(boards)
    np.testing.assert_array_equal(result, np.arange(1 + length)[None] == np.zeros((count, 1)))


def test_a_board_that_is_too_small_has_no_line():
    assert not has_line(jnp.ones((2, 3), bool), 4)


@pytest.mark.parametrize("name", NAMES)
def test_games_pass_the_check(name):
    env = rljax.make(f"rljax/{name}")
    envs.validate(env)
    assert env.spec.num_players == 2 and env.spec.action_mask == "legal"
    assert f"rljax/{name}" in envs.environment_ids("rljax")


def test_a_time_limit_truncates():
    env = rljax.make("rljax/ConnectFour", max_episode_steps=3)
    (state, _), step = env.reset(jax.random.key(0)), None
    for column in range(3):
        state, step = env.step(state, jnp.int32(column), jnp.zeros(0))
    assert step is not None
    assert step.truncated and not step.terminated and not step.obs["board"].any()
