"""Plain Monte Carlo tree search, compared with hand-made trees and with perfect play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.test_opponents import outcomes

import rljax
from rljax.envs import board_games, mcts, opponents, time_limit

pytestmark = pytest.mark.usefixtures("quick_compiles")
GAME = board_games.tic_tac_toe()


def position(*moves):
    state, obs = GAME.reset(jax.random.key(0))
    for move in moves:
        state, step = GAME.step(state, jnp.int32(move), jnp.zeros(0))
        assert not step.terminated
        obs = step.next_obs
    return state, obs


def searched(moves, num_rollouts, num_searches=1, seed=0):
    keys = jax.random.split(jax.random.key(seed), num_searches)
    search = jax.vmap(mcts.search(GAME, num_rollouts), (None, None, 0))
    return jax.device_get(jax.jit(search)(*position(*moves), keys))


def test_rollouts_have_the_mean_of_random_play():
    keys = jax.random.split(jax.random.key(0), 4000)
    values = jax.vmap(lambda key: mcts.rollout(GAME, *position(), key))(keys)
    # the first player wins 58.5 % of random games and loses 28.8 %
    assert float(values.mean()) == pytest.approx(0.585 - 0.288, abs=0.04)
    # the last cell completes a line of the player to act
    assert float(mcts.rollout(GAME, *position(0, 1, 2, 3, 4, 5, 7, 6), keys[0])) == 1


def test_counts_of_the_tree():
    tree = jax.tree.map(lambda x: x[0], searched((4, 0, 1), 200))
    root = tree.child[0]
    assert (root >= 0).tolist() == [i not in (4, 0, 1) for i in range(9)]  # the legal actions
    assert tree.visits[root[root >= 0]].sum() == 200
    used = [node for node in range(1, 201) if tree.visits[node]]
    assert tree.done[used].any()
    for node in used:
        below = tree.child[node][tree.child[node] >= 0]
        if tree.done[node]:
            assert len(below) == 0 and tree.total[node] == tree.visits[node] * tree.reward[node]
        else:  # all visits but the first went on to a child, where the other player gains
            assert tree.visits[node] == 1 + tree.visits[below].sum()
            assert tree.total[node] + tree.total[below].sum() in (-1, 0, 1)  # the first rollout


@pytest.mark.parametrize(
    ("moves", "best"),
    [((0, 3, 1, 4), [2]), ((0, 4, 1), [2]), ((0,), [4]), ((0, 4, 8), [1, 3, 5, 7])],
    ids=["win", "block", "center", "edge"],
)
def test_finds_the_best_moves_of_minimax(moves, best):
    stones = np.asarray(position(*moves)[1]["board"]).reshape(9, 2)
    code = int((stones @ [1, 2]) @ 3 ** np.arange(9))
    assert np.flatnonzero(opponents.tic_tac_toe_values()[1][code]).tolist() == best
    tree = searched(moves, 1000, num_searches=4)
    root = jax.vmap(lambda tree: mcts.mean_outcomes(tree, jnp.int32(0))[1])(tree)
    assert set(np.asarray(root.argmax(axis=-1)).tolist()) <= set(best)


def test_rarely_loses_to_perfect_play():
    env = rljax.make("rljax/TicTacToe")
    against = opponents.against(env, "minimax")
    result, _ = outcomes(against, opponents.mcts(env, 400), 60)
    assert (result < 0).sum() <= 12 and set(result) <= {-1, 0}


def test_a_time_limit_is_a_draw():
    env = time_limit(GAME, 4)
    state, obs = env.reset(jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), 100)
    assert not jax.vmap(lambda key: mcts.rollout(env, state, obs, key))(keys).any()
