"""AlphaZero: its search against exact minimax, its targets against hand-computed returns."""

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tic_tac_toe

import rljax
from rljax.agents.alphazero import AlphaZeroConfig, alphazero
from rljax.agents.search import make_search
from rljax.envs import wrappers
from rljax.envs.board_games import Board
from rljax.envs.state import show_state
from rljax.networks.masking import masked
from rljax.replay import ring
from rljax.types import Env, EnvSpec, StateObs, Step, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

SMALL = {
    "num_envs": 4, "num_steps": 9, "total_timesteps": 720, "learning_starts": 72, "batch_size": 16,
    "train_frequency": 36, "gradient_steps": 1, "buffer_size": 200, "num_simulations": 4,
    "hidden_sizes": (8,),
}  # fmt: skip


class Constant(nn.Module):
    """A uniform policy, and the same value everywhere."""

    num_actions: int
    value: float = 0.0

    @nn.compact
    def __call__(self, obs):
        shape = jax.tree.leaves(obs)[0].shape
        batch = shape[: len(shape) - self.rank]
        anchor = self.param("anchor", nn.initializers.zeros, ())
        logits = jnp.zeros((*batch, self.num_actions)) + anchor
        return distrax.Categorical(logits=logits), jnp.full(batch, self.value) + anchor

    rank: int = 1


def board_of(cells):
    cells = np.asarray(cells).reshape(-1, 3, 3)
    return jnp.asarray(np.stack([cells == 1, cells == 2], axis=-1))


def searched(positions, num_simulations, search="gumbel"):
    """The search with a network that knows nothing, in several positions at once."""
    env = rljax.make("rljax/TicTacToe")
    config = AlphaZeroConfig(num_simulations=num_simulations, search=search)
    network = masked(Constant(9, rank=3), env.spec)
    boards = board_of(positions)
    obs = {"board": boards, "legal": ~boards.any(axis=-1).reshape(-1, 9)}
    params = network.init(jax.random.key(0), obs)
    run = make_search(config, env.spec, network.apply, env.before_reset)
    return jax.jit(run)(params, obs, Board(boards), jax.random.key(1), 0.0)


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_the_zero_sum_backup_finds_the_moves_of_minimax(search):
    """Positions with at most five empty cells: the search sees the ends of all games."""
    rng = np.random.default_rng(0)
    late = [p for p in tic_tac_toe.positions() if tic_tac_toe.best_moves(p)]
    late = [p for p in late if 2 <= p.count(0) <= 5]
    some = [late[i] for i in rng.choice(len(late), 300, replace=False)]
    found = searched(some, 300, search)
    optimal = [int(a) in tic_tac_toe.best_moves(p) for a, p in zip(found.action, some, strict=True)]
    assert np.mean(optimal) > 0.99, np.mean(optimal)
    exact = np.array([tic_tac_toe.value(p) for p in some])
    root = np.asarray(found.value)
    assert (root[exact == 1] > 0.5).mean() > 0.97
    assert (root[exact == -1] < -0.3).mean() > 0.97
    assert (np.abs(root[exact == 0]) < 0.5).mean() > 0.97


def test_a_move_that_wins_and_a_move_that_prevents_a_loss():
    wins = (1, 1, 0, 2, 2, 0, 0, 0, 0)
    loses_without_5 = (1, 0, 0, 2, 2, 0, 0, 0, 1)
    found = searched([wins, loses_without_5], 64)
    assert found.action.tolist() == [2, 5]
    assert found.policy[0, 2] > 0.9
    assert found.policy.sum(axis=-1).tolist() == pytest.approx([1.0, 1.0])
    assert (np.asarray(found.policy)[:, [0, 3, 4]] == 0).all()  # taken cells


def test_value_targets_alternate_their_sign():
    """Two games side by side: one won by the third move, one cut by a time limit at the end."""
    env = wrappers.batched(show_state(rljax.make("rljax/TicTacToe")), 2)
    config = AlphaZeroConfig(**SMALL | {"num_envs": 2, "learning_starts": 100, "gamma": 0.5})
    agent = alphazero(config, env.spec, network=Constant(9, 0.5, rank=3))
    state = agent.init(jax.random.key(0))
    obs = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (3, *x.shape)), env.reset(jax.random.key(1))[1]
    )
    reward = jnp.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    ends = jnp.array([[False, False], [False, False], [True, False]])
    cut = jnp.array([[False, False], [False, False], [False, True]])
    extras = {"policy": jnp.full((3, 2, 9), 1 / 9), "value": jnp.zeros((3, 2))}
    trajectory = Transition(obs, jnp.zeros((3, 2), jnp.int32), reward, ends, cut, obs, extras)
    state, _ = agent.update(state, trajectory, jax.random.key(2))
    items = ring.contents(state.replay)
    value = np.asarray(items.extras["value"])[:6].reshape(3, 2)
    # the winner values its last move 1; the opponent's move before it -0.5, the one before 0.25
    np.testing.assert_allclose(value[:, 0], [0.25, -0.5, 1.0])
    # bootstrapped from 0.5, the opponent's value
    np.testing.assert_allclose(value[:, 1], [-0.0625, 0.125, -0.25])
    assert not isinstance(items.obs, StateObs)  # states of the environment are not stored


def chain(terminates, length=2) -> Env:
    """Action 1 ends the episode at once with reward 1; action 0 continues for `length` steps."""
    spec = EnvSpec((1,), num_actions=2, env_id="chain", max_episode_steps=length)

    def observe(time):
        return time.astype(jnp.float32)[None]

    def reset(key):
        del key
        return jnp.int32(0), observe(jnp.int32(0))

    def step(time, action, key):
        del key
        time = time + 1
        stops = action == 1
        at_limit = (time >= length) & ~stops
        terminated, truncated = (
            (stops | at_limit, jnp.bool_(False)) if terminates else (stops, at_limit)
        )
        obs = observe(time)
        return time, Step(obs, stops.astype(jnp.float32), terminated, truncated, obs)

    return Env(spec, reset, step)


@pytest.mark.parametrize("terminates", [True, False])
def test_a_time_limit_is_bootstrapped_in_the_search(terminates):
    """With gamma 0.9 and a value of 4 at the limit, going on is worth 0.81 * 4 > 1."""
    env = chain(terminates)
    config = AlphaZeroConfig(num_simulations=60, gamma=0.9)
    network = Constant(2, 4.0)
    obs = jnp.zeros((1, 1))
    params = network.init(jax.random.key(0), obs)
    run = make_search(config, env.spec, network.apply, env)
    found = run(params, obs, jnp.zeros(1, jnp.int32), jax.random.key(0), 0.0)
    assert found.action.tolist() == [1 if terminates else 0]
    best = 0.9 if terminates else 0.81 * 4  # after action 0: stop, or reach the limit
    np.testing.assert_allclose(found.q_values[0, 1], 1.0, atol=1e-5)
    np.testing.assert_allclose(found.q_values[0, 0], best, rtol=0.15)


def test_any_environment_can_be_the_model_and_none_is_refused():
    env = rljax.build("rljax/Maze", 2)
    with pytest.raises(ValueError, match="`model` is missing, but alphazero plans with an `Env`"):
        alphazero(AlphaZeroConfig(**SMALL), env.spec)
    single = rljax.make("rljax/Maze")
    agent = alphazero(AlphaZeroConfig(**SMALL), env.spec, model=single.before_reset)
    state = agent.init(jax.random.key(0))
    env_state, obs = env.reset(jax.random.key(1))
    with pytest.raises(ValueError, match="show_state"):
        agent.greedy(state, obs, jax.random.key(0))
    action = agent.greedy(state, StateObs(obs, env_state.env), jax.random.key(0))
    assert action.shape == (2,)


def test_n_step_returns_are_refused():
    with pytest.raises(ValueError, match="set `trace_lambda`"):
        AlphaZeroConfig(**SMALL | {"n_step": 3, "learning_starts": 100})


def test_learns_from_a_script_in_an_environment_of_one_player():
    run = rljax.train(
        "alphazero", "CartPole-v1", num_seeds=2, **SMALL | {"num_simulations": 8}, gamma=0.99,
        eval_episodes=0, env_params={"max_episode_steps": 20},
    )  # fmt: skip
    assert np.isfinite(run.metrics["losses/value_loss"][:, -1]).all()
    returns = rljax.evaluate(run, 4)["returns"]
    assert returns.shape == (2, 4) and returns.mean() > 15  # 9 with the same action every time
