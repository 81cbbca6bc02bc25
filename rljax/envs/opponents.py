"""Opponents in games of two players, and `against`, which makes such a game one of one player.

An opponent is a function `(state, obs, key) -> action`: `state` is that of the game before
`auto_reset`, `obs` the observation of the player who acts. Names of opponents are "random",
"minimax" (tic-tac-toe) and "mcts" (1,000 rollouts a move) or "mcts:N".
"""

import functools
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import at_least
from rljax.envs import mcts as tree_search
from rljax.envs.resets import auto_reset
from rljax.envs.wrapped import check_not_on_host, check_single
from rljax.ops import random
from rljax.ops.observations import environment_obs
from rljax.types import Array, Env, EnvSpec, Key, PyTree, sample_one

OPPONENTS = ("random", "minimax", "mcts")
NUM_ROLLOUTS = 1000
TIC_TAC_TOE = {  # field of the stones in the observation
    "rljax/TicTacToe": "board", "pgx/tic_tac_toe": "observation", "tic_tac_toe": "observation",
}  # fmt: skip


class Opponent(Protocol):
    def __call__(self, state: PyTree, obs: PyTree, key: Key, /) -> Array:
        """Returns a legal action in one game, without an axis of copies."""
        ...


def against(env: Env, opponent: str | Opponent = "random") -> Env:
    """Makes a game of two players one of one player, against an opponent.

    Whether the agent or the opponent begins is drawn at random in each episode. The opponent moves
    inside `step`. The reward is the agent's own minus that of the opponent's reply.

    Args:
      env: a single environment of two players, as `rljax.make` returns it.
      opponent: a name, or a function.

    Raises:
      ValueError: the environment does not have two players, resets itself by other means than
        `auto_reset`, is a batch, or the opponent is unknown.

    Example:
      >>> from rljax.envs import make
      >>> env = against(make("rljax/TicTacToe"), "minimax")
      >>> state, obs = env.reset(jax.random.key(1))
      >>> env.spec.num_players, int(obs["board"].sum())
      (1, 1)
    """
    check_two_players(env)
    if env.before_reset is None:
        raise ValueError(
            f"{env.spec.env_id} resets itself inside `step`, so an opponent cannot move before the "
            "reset: make it with `rljax.envs.auto_reset`."
        )
    return auto_reset(without_reset(env.before_reset, opponent))


def check_two_players(env: Env) -> None:
    """Checks that an environment is a single game of two players."""
    if env.spec.num_players != 2:
        raise ValueError(
            f"{env.spec.env_id} has {env.spec.num_players} player, but an opponent needs a game of "
            "two, such as rljax/TicTacToe."
        )
    check_single(env)
    check_not_on_host(env)


def without_reset(game: Env, opponent: str | Opponent) -> Env:
    """Returns a game against an opponent; neither its `step` nor that of the game resets."""
    check_two_players(game)
    choose = by_name(game, opponent) if isinstance(opponent, str) else opponent

    def reply(state, obs, key):
        choose_key, noise_key = random.split(key)
        action = choose(state, environment_obs(obs), choose_key)
        return game.step(state, action, sample_one(game.sample_noise, noise_key))

    def reset(key):
        reset_key, side_key, reply_key = random.split(key, 3)
        state, obs = game.reset(reset_key)
        other_state, other = reply(state, obs, reply_key)
        begins = jax.random.bernoulli(side_key)
        return _where(begins, (state, obs), (other_state, other.next_obs))

    def step(state, action, key):
        noise_key, reply_key = random.split(key)
        state, own = game.step(state, action, sample_one(game.sample_noise, noise_key))
        # where a time limit ends the game, the opponent replies still: the agent bootstraps from
        # an observation of its own
        other_state, other = reply(state, own.next_obs, reply_key)
        over = own.terminated
        reward = own.reward - jnp.where(over, 0.0, other.reward)
        terminated = over | other.terminated
        truncated = (own.truncated | other.truncated) & ~terminated
        chosen = (state, own.next_obs), (other_state, other.next_obs)
        state, obs = _where(over, *chosen)
        step = own._replace(
            obs=obs, next_obs=obs, reward=reward, terminated=terminated, truncated=truncated
        )
        return state, step

    spec = game.spec._replace(num_players=1, termination=None)
    return game._replace(spec=spec, reset=reset, step=step, sample_noise=random.split)


def _where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)


def by_name(game: Env, name: str) -> Opponent:
    """Returns an opponent of a game by its name.

    Raises:
      ValueError: the name is unknown, or "minimax" in another game than tic-tac-toe.
    """
    kind, colon, number = name.partition(":")
    if kind not in OPPONENTS or (colon and kind != "mcts"):
        raise ValueError(
            f"there is no opponent `{name}`: use one of {', '.join(OPPONENTS)}, or mcts:N for N "
            "rollouts a move."
        )
    if kind == "random":
        return uniform(game.spec)
    if kind == "minimax":
        return minimax(game.spec)
    return mcts(game, at_least("opponent, N of mcts:N", number, 1) if colon else NUM_ROLLOUTS)


def uniform(spec: EnvSpec) -> Opponent:
    """Returns an opponent that chooses legal actions with equal probability."""

    def choose(state, obs, key):
        del state
        return tree_search.random_legal(spec, obs, key)

    return choose


@functools.cache
def tic_tac_toe_values() -> tuple[np.ndarray, np.ndarray]:
    """Solves tic-tac-toe by minimax.

    Returns:
      For each position, numbered in base 3 (0 empty, 1 own stone, 2 stone of the opponent; cell i
      has weight 3**i): the value for the player to act, `[3**9]` int8, and the best moves,
      `[3**9, 9]` bool. Positions that cannot occur have the value 0 and no best move.

    Example:
      >>> value, best = tic_tac_toe_values()
      >>> int(value[0]), int(best[0].sum())
      (0, 9)
    """
    grid = np.arange(9).reshape(3, 3)
    lines = [*grid, *grid.T, grid.diagonal(), grid[:, ::-1].diagonal()]
    values, best = np.zeros(3**9, np.int8), np.zeros((3**9, 9), bool)
    known = set()

    def solve(own: frozenset, other: frozenset) -> int:
        """The value of a position in which the opponent has moved last."""
        code = sum(3**i for i in own) + 2 * sum(3**i for i in other)
        if code in known:
            return int(values[code])
        known.add(code)
        empty = [cell for cell in range(9) if cell not in own | other]
        if any(other.issuperset(line.tolist()) for line in lines):
            values[code] = -1
        elif empty:
            outcomes = {cell: -solve(other, own | {cell}) for cell in empty}
            values[code] = max(outcomes.values())
            best[code, [cell for cell in empty if outcomes[cell] == values[code]]] = True
        return int(values[code])

    solve(frozenset(), frozenset())
    return values, best


def minimax(spec: EnvSpec) -> Opponent:
    """Returns an opponent that plays tic-tac-toe perfectly: one of the best moves at random.

    Raises:
      ValueError: the game is not tic-tac-toe.
    """
    if spec.env_id not in TIC_TAC_TOE:
        raise ValueError(
            f"the opponent `minimax` plays {' and '.join(TIC_TAC_TOE)}, but the game is "
            f"{spec.env_id}: use `mcts`."
        )
    best = jnp.asarray(tic_tac_toe_values()[1])
    weights = np.stack([3 ** np.arange(9), 2 * 3 ** np.arange(9)], axis=-1)

    def choose(state, obs, key):
        del state
        stones = obs[TIC_TAC_TOE[spec.env_id]].reshape(9, 2)
        mask = best[(stones * weights).sum()]
        return jnp.where(mask, random.uniform(key, (9,)), -1.0).argmax()

    return choose


def mcts(env: Env, num_rollouts: int = NUM_ROLLOUTS) -> Opponent:
    """Returns an opponent with plain Monte Carlo tree search (see `envs.mcts`).

    Its move is the action with the most visits.

    Args:
      env: the game, with or without `auto_reset`; its states are those that the opponent is given.
      num_rollouts: number of simulations of a move.
    """
    check_two_players(env)
    game: Env = env if env.before_reset is None else env.before_reset
    search = tree_search.search(game, num_rollouts)

    def choose(state, obs, key):
        search_key, tie_key = random.split(key)
        _, visits = tree_search.mean_outcomes(search(state, obs, search_key), jnp.int32(0))
        return (visits + random.uniform(tie_key, visits.shape)).argmax()

    return choose
