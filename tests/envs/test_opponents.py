"""Opponents, and games against them as environments of one player."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tic_tac_toe

import rljax
from rljax import envs
from rljax.agents import AGENTS
from rljax.envs import opponents
from rljax.envs.state import show_state

pytestmark = pytest.mark.usefixtures("quick_compiles")
TIC_TAC_TOE = "rljax/TicTacToe"


def outcomes(env, choose, num_games, seed=0):
    """Returns outcomes and lengths of games in which `choose` plays an `Env` of one player."""
    env = env.before_reset

    def play(key):
        reset_key, key = jax.random.split(key)
        state, obs = env.reset(reset_key)

        def move(carry):
            time, state, obs, _, _ = carry
            action_key, step_key = jax.random.split(jax.random.fold_in(key, time))
            state, step = env.step(state, choose(state, obs, action_key), step_key)
            return time + 1, state, step.next_obs, step.reward, step.terminated

        start = jnp.int32(0), state, obs, jnp.float32(0), jnp.zeros((), bool)
        time, *_, reward, _ = jax.lax.while_loop(lambda carry: ~carry[-1], move, start)
        return reward, time

    return np.asarray(jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(seed), num_games)))


def test_minimax_knows_the_value_and_the_best_moves_of_every_position():
    value, best = opponents.tic_tac_toe_values()
    positions = tic_tac_toe.positions()
    assert len(positions) == 5478
    for position in positions:
        code = sum(cell * 3**i for i, cell in enumerate(position))
        assert value[code] == tic_tac_toe.value(position), position
        assert set(np.flatnonzero(best[code])) == tic_tac_toe.best_moves(position), position


def test_perfect_players_draw_and_never_lose():
    env = rljax.make(TIC_TAC_TOE)
    choose = opponents.minimax(env.spec)
    assert set(outcomes(opponents.against(env, "minimax"), choose, 200)[0]) == {0}
    against_random = outcomes(opponents.against(env, "random"), choose, 200)[0]
    assert set(against_random) == {0, 1} and against_random.mean() > 0.7


def test_random_play_has_its_known_outcomes():
    env = rljax.make(TIC_TAC_TOE)
    result, lengths = outcomes(env=opponents.against(env), choose=opponents.uniform(env.spec),
                               num_games=4000)  # fmt: skip
    # among random games the first player wins 58.5 %, the second 28.8 %; the sides are drawn
    assert np.mean(result == 0) == pytest.approx(0.127, abs=0.02)
    assert np.mean(result) == pytest.approx(0, abs=0.04)
    assert np.mean(result == 1) == pytest.approx(0.4365, abs=0.03)
    assert set(lengths) == {2, 3, 4, 5}


def test_both_sides_are_played():
    env = opponents.against(rljax.make(TIC_TAC_TOE)).before_reset
    keys = jax.random.split(jax.random.key(0), 1000)
    state, obs = jax.vmap(env.reset)(keys)
    stones = np.asarray(obs["board"]).sum(axis=(1, 2))
    assert not stones[:, 0].any() and set(stones[:, 1]) == {0, 1}
    assert stones[:, 1].mean() == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(state.stones, obs["board"])


def replies(*moves):
    """An opponent that plays the moves of a list, by the number of stones on the board."""

    def choose(state, obs, key):
        return jnp.array(moves)[obs["board"].sum() // 2]

    return choose


def first_player(env, opponent, moves):
    """Returns the steps of moves of the agent, which begins, against an opponent."""
    env = opponents.against(env, opponent).before_reset
    states = [env.reset(jax.random.key(seed))[0] for seed in range(8)]
    state = next(state for state in states if not innermost_stones(state).any())
    steps = []
    for i, move in enumerate(moves):
        state, step = env.step(state, jnp.int32(move), jax.random.key(i))
        steps.append(step)
    return steps


def innermost_stones(state):
    return getattr(state, "env", state).stones


def test_rewards_are_those_of_the_agent():
    env = rljax.make(TIC_TAC_TOE)
    steps = first_player(env, replies(3, 4, 8), [0, 1, 2])
    assert [float(step.reward) for step in steps] == [0, 0, 1]
    assert [bool(step.terminated) for step in steps] == [False, False, True]
    np.testing.assert_array_equal(
        steps[0].obs["board"].reshape(9, 2).argmax(axis=0), [0, 3]
    )  # own stones first
    steps = first_player(env, replies(3, 4, 5), [0, 1, 8])
    assert [float(step.reward) for step in steps] == [0, 0, -1]
    assert [bool(step.terminated) for step in steps] == [False, False, True]


@pytest.mark.parametrize("limit", [3, 4])
def test_the_opponent_replies_where_a_time_limit_ends_the_game(limit):
    env = rljax.make(TIC_TAC_TOE, max_episode_steps=limit)
    first, second = first_player(env, replies(3, 4, 8), [0, 1])
    assert not first.truncated and second.truncated and not second.terminated
    stones = second.next_obs["board"].reshape(9, 2)
    assert stones[:, 0].nonzero()[0].tolist() == [0, 1]  # the view of the agent
    assert stones[:, 1].nonzero()[0].tolist() == [3, 4]


def test_the_observed_state_is_that_of_the_game():
    env = opponents.against(show_state(rljax.make(TIC_TAC_TOE)), "mcts:4")
    state, obs = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(obs.obs["board"], obs.state.stones)
    state, step = env.step(state, jnp.argmax(obs.obs["legal"]), jax.random.key(1))
    np.testing.assert_array_equal(step.obs.obs["board"], step.obs.state.stones)
    assert env.spec.simulator.spec.num_players == 2 and env.spec.num_players == 1


@pytest.mark.parametrize("name", ["random", "minimax", "mcts:8"])
def test_games_against_opponents_pass_the_check(name):
    env = rljax.make(TIC_TAC_TOE, opponent=name)
    envs.validate(env)
    assert env.spec.num_players == 1


@pytest.mark.parametrize("env_id", ["pgx/tic_tac_toe", "pgx/connect_four"])
def test_games_of_pgx_have_opponents(env_id):
    pytest.importorskip("pgx")
    name = "minimax" if env_id == "pgx/tic_tac_toe" else "random"
    with jax.numpy_rank_promotion("allow"):  # in pgx
        env = rljax.make(env_id, opponent=name)
        choose = opponents.uniform(env.spec)
        result, _ = outcomes(env, choose, 100)
    assert set(result) <= {-1, 0, 1} and -1 in result
    assert (1 in result) == (name == "random")


def test_wrong_opponents_are_refused():
    env = rljax.make(TIC_TAC_TOE)
    for name in ("alphabeta", "random:3", "minimax:2"):
        with pytest.raises(ValueError, match=f"there is no opponent `{name}`: use one of random"):
            opponents.against(env, name)
    with pytest.raises(ValueError, match="mcts:N` is 0, but it must be at least 1"):
        opponents.against(env, "mcts:0")
    with pytest.raises(ValueError, match="`minimax` plays .* but the game is rljax/ConnectFour"):
        rljax.make("rljax/ConnectFour", opponent="minimax")
    with pytest.raises(ValueError, match="rljax/Maze has 1 player, but an opponent needs a game"):
        rljax.make("rljax/Maze", opponent="random")
    with pytest.raises(ValueError, match="resets itself inside `step`"):
        opponents.against(env._replace(before_reset=None))
    with pytest.raises(ValueError, match="already a batch"):
        opponents.against(envs.batched(env, 2))
    with pytest.raises(ValueError, match="rljax/TicTacToe has no .* did you mean `opponent`"):
        rljax.make(TIC_TAC_TOE, oponent="random")
    with pytest.raises(ValueError, match="CartPole-v1 has no .*`opponent`"):
        rljax.make("CartPole-v1", opponent="random")


@pytest.mark.parametrize("name", [name for name, row in AGENTS.items() if row.players == (1,)])
def test_agents_of_one_player_refuse_games_of_two(name):
    with pytest.raises(ValueError, match="is a game of 2: use alphazero or muzero, or train again"):
        AGENTS[name].check(name, rljax.make(TIC_TAC_TOE).spec)


def test_evaluation_of_games_of_two_players():
    run = rljax.train(
        "ppo", TIC_TAC_TOE, env_params={"opponent": "random"}, total_timesteps=512, num_envs=4,
        num_steps=16, eval_episodes=0, progress=False,
    )  # fmt: skip
    strong, weak = (
        rljax.evaluate(run, 100, opponent=name)["returns"] for name in ("minimax", "random")
    )
    assert set(strong.ravel()) <= {-1, 0} and weak.mean() > strong.mean() + 0.3
    maze = rljax.train("q_learning", "rljax/Maze", total_timesteps=64, eval_episodes=0,
                       progress=False)  # fmt: skip
    with pytest.raises(ValueError, match="rljax/Maze has one player: leave it out"):
        rljax.evaluate(maze, 5, opponent="random")


def test_agents_plan_with_the_game_and_not_with_the_opponent():
    run = rljax.train(
        "alphazero", TIC_TAC_TOE, total_timesteps=64, num_envs=8, num_steps=8, learning_starts=32,
        batch_size=16, num_simulations=128, hidden_sizes=(8,), torso="mlp", eval_episodes=0,
        progress=False,
    )  # fmt: skip
    # values of an untrained network are small, so that the search finds forced wins and losses
    returns = rljax.evaluate(run, 100, opponent="random")["returns"]
    assert returns.mean() > 0.75  # uniform play has the mean 0
