"""The search of MuZero in the exact model of a small game, whose best moves are known."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.agents.muzero import MuZeroConfig
from rljax.agents.muzero_search import make_search
from rljax.agents.search import improved_value
from rljax.ops.value_supports import to_support
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

# payoffs of the first player, who chooses a row; the second player chooses a column
PAYOFF = np.array([[3.0, -5.0], [1.0, 2.0]], np.float32)
SUPPORT_SIZE = 10


def logits_of(values):
    return jnp.log(to_support(values, SUPPORT_SIZE) + 1e-9)


class TwoMoves(nn.Module):
    """The exact model of a game of two moves; states are the time and the first move, `[B, 2]`.

    The second move is rewarded with minus the payoff. Without knowledge, all predictions are 0.
    """

    bonus: float = 0.0  # reward of the first move 1

    def represent(self, obs):
        return obs

    def dynamics(self, state, action):
        time, row = state[..., 0], state[..., 1].astype(jnp.int32)
        second = -jnp.asarray(PAYOFF)[row, action]
        first = self.bonus * action.astype(jnp.float32)
        reward = jnp.where(time == 0, first, jnp.where(time == 1, second, 0.0))
        row = jnp.where(time == 0, action, row).astype(jnp.float32)
        return jnp.stack([time + 1, row], axis=-1), logits_of(reward)

    def predict(self, state):
        return jnp.zeros((*state.shape[:-1], 2)), logits_of(jnp.zeros(state.shape[:-1]))

    def __call__(self, obs, action):
        self.param("anchor", nn.initializers.zeros, ())
        state, reward = self.dynamics(self.represent(obs), action)
        return state, reward, *self.predict(state)


class MaskedMoves(TwoMoves):
    def represent(self, obs):
        return obs["game"]


def search_game(num_players, num_simulations=64, mask=None, gumbel_scale=0.0, bonus=0.0):
    """Searches from the start of the game for eight random keys at once."""
    obs: Any = jnp.zeros((8, 2))
    spec = EnvSpec((2,), num_actions=2, num_players=num_players)
    network: Any = TwoMoves(bonus)
    if mask is not None:
        obs = {"game": obs, "legal": jnp.broadcast_to(jnp.array(mask), (8, 2))}
        spec = spec._replace(obs_shape={"game": (2,), "legal": (2,)}, action_mask="legal")
        network = MaskedMoves(bonus)
    options: dict[str, Any] = {"num_simulations": num_simulations, "gamma": 1.0}
    options["gumbel_scale"] = gumbel_scale
    search = jax.jit(make_search(MuZeroConfig(**options), spec, network))
    return search({}, obs, jax.random.key(1), 1.0)


def test_search_finds_the_minimax_move_of_a_game_of_two_players():
    """The second player answers row 0 with -5 and row 1 with 1 for the first."""
    found = search_game(num_players=2)
    assert PAYOFF.min(axis=1).argmax() == 1
    np.testing.assert_array_equal(found.action, 1)
    assert (np.asarray(found.policy)[:, 1] > 0.98).all()
    np.testing.assert_allclose(found.value, PAYOFF.min(axis=1).max(), atol=0.2)


def test_search_finds_the_largest_return_of_one_player():
    """One player gets minus the payoff of the second move, at most 5, after row 0."""
    found = search_game(num_players=1)
    np.testing.assert_array_equal(found.action, 0)
    assert (np.asarray(found.policy)[:, 0] > 0.98).all()
    np.testing.assert_allclose(found.value, 5.0, atol=0.5)


@pytest.mark.parametrize("gumbel_scale", [0.0, 1.0, 100.0])
def test_illegal_actions_are_never_chosen(gumbel_scale):
    """The illegal row is the better one, and has a bonus."""
    found = search_game(2, mask=[True, False], gumbel_scale=gumbel_scale, bonus=50.0)
    np.testing.assert_array_equal(found.action, 0)
    np.testing.assert_array_equal(found.policy, np.array([[1.0, 0.0]] * 8))
    np.testing.assert_allclose(found.value, -5.0, atol=0.5)
    free = search_game(2, gumbel_scale=0.0, bonus=50.0)
    np.testing.assert_array_equal(free.action, 1)


def test_gumbel_noise_explores_and_its_absence_does_not():
    few = {"num_players": 2, "num_simulations": 2}
    assert len({*np.asarray(search_game(**few, gumbel_scale=10.0).action)}) == 2
    assert len({*np.asarray(search_game(**few).action)}) == 1


def test_improved_value_is_the_mean_over_visited_actions():
    policy, q = np.array([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]]), np.array([[1.0, 2.0, 9.0]] * 2)
    visits = np.array([[1, 7, 0], [0, 3, 0]])
    found = improved_value(jnp.float32(policy), jnp.float32(q), jnp.array(visits))
    np.testing.assert_allclose(found, [(0.5 + 0.6) / 0.8, 2.0], rtol=1e-6)
