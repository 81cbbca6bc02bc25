"""Adapter for pgx, https://github.com/sotetsuk/pgx: 2048, MinAtar, and games of two players.

An end is pgx's `terminated`. The number of moves after which pgx ends chess, shogi or Go is a rule
of the game (Silver et al. 2018): a draw, or the score of the board. There are no other time limits,
except for Freeway, which pgx terminates after 2501 steps; the adapter switches that clock off and
truncates after 2500.

Observations of MinAtar are one image: all its actions are legal in every state. All others are a
dict of pgx's observation and the legal actions. Rewards are not scaled; those of 2048 reach
thousands. In a game of two players they are those of the player who moved.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import pgx

from rljax.envs.adapters import checked_params, only_time_limit, spec_fields
from rljax.envs.board_games import text_of
from rljax.envs.wrappers import time_limit
from rljax.ops import random
from rljax.types import Env, EnvSpec, Step

TIME_LIMITS = {"minatar-freeway": 2500}
ONE_PLAYER = ("2048", "minatar-")  # names of games of one player start with one of these
# deterministic zero-sum games of perfect information in which the players alternate
TWO_PLAYERS = (
    "animal_shogi", "chess", "connect_four", "gardner_chess", "go_9x9", "go_19x19", "hex",
    "othello", "shogi", "tic_tac_toe",
)  # fmt: skip
REFUSED = {
    "backgammon": "has dice",
    "kuhn_poker": "has hidden cards",
    "leduc_holdem": "has hidden cards",
    "sparrow_mahjong": "has three players and hidden tiles",
}
STONES = ("connect_four", "go_", "hex", "othello", "tic_tac_toe")  # own and other stones come first


def registered() -> list[str]:
    """Returns the names of all games of pgx, also of those that `unavailable` refuses."""
    return list(pgx.available_envs())


def unavailable(name: str) -> str:
    """Returns why a game cannot be made, as a sentence; empty if it can."""
    if name.startswith(ONE_PLAYER) or name in TWO_PLAYERS:
        return ""
    reason = REFUSED.get(name, "is not known to be either")
    return (
        "rljax has the games of pgx for one player, and the deterministic ones of perfect "
        f"information for two, but pgx/{name} {reason}: use a game such as pgx/connect_four."
    )


def from_id(name: str, **params: Any) -> Env:
    """Returns a game of pgx as an `Env` whose `step` does not reset.

    Args:
      name: one of `registered()`.
      params: arguments of the game's class, such as `sticky_action_prob` of MinAtar, and
        `max_episode_steps`.

    Raises:
      ValueError: a stochastic game of two players or one of imperfect information, or an unknown
        parameter.
    """
    if reason := unavailable(name):
        raise ValueError(reason)
    game = type(pgx.make(name))  # pyright: ignore[reportArgumentType]
    defaults = {key: x.default for key, x in inspect.signature(game).parameters.items()}
    fixed = {}
    if name == "hex":  # pgx fails for other sizes than the default
        defaults = {}
    elif name.startswith("go_"):  # the size is in the name
        fixed = {"size": int(name.rpartition("x")[2])}
        defaults = {"komi": defaults["komi"], "max_terminal_steps": 0}
    limit = {key: params.pop(key) for key in ("max_episode_steps",) if key in params}
    checked = checked_params(params, defaults, f"pgx/{name}")
    made = from_object(game(**fixed, **checked), **limit)
    return made._replace(spec=made.spec._replace(env_id=f"pgx/{name}"))


def from_object(env: Any, env_params: None = None, **params: Any) -> Env:
    """Returns a `pgx.Env` as an `Env` whose `step` does not reset.

    Args:
      env: the game.
      env_params: None; the parameters of a game of pgx are arguments of its class.
      params: only `max_episode_steps`.

    Raises:
      ValueError: a stochastic game of two players or one of imperfect information, or an unknown
        parameter.
    """
    if not isinstance(env, pgx.Env):
        raise ValueError(f"{type(env).__name__} is not a game of pgx, a `pgx.Env`.")
    if reason := unavailable(env.id) if env.num_players != 1 else "":
        raise ValueError(reason)
    limit = only_time_limit(env_params, params, TIME_LIMITS.get(env.id, 0), env.id)
    is_masked = not env.id.startswith("minatar-")

    def observe(state):
        if not is_masked:
            return state.observation
        return {"observation": state.observation, "action_mask": state.legal_action_mask}

    def reset(key):
        state = env.init(key)
        if hasattr(state, "_terminate_timer"):  # of Freeway
            never = jnp.int32(jnp.iinfo(jnp.int32).max)
            state = state.replace(_terminate_timer=never)  # pyright: ignore
        return state, observe(state)

    def step(state, action, key):
        player = state.current_player
        state = env.step(state, action, key)
        obs, reward = observe(state), jnp.float32(state.rewards[player])
        truncated = state.truncated & ~state.terminated
        return state, Step(obs, reward, state.terminated, truncated, obs)

    def render(state):
        stones = state.observation[..., :2]
        began_acts = int(state._step_count) % 2 == 0
        return text_of(stones, began_acts, indent=int(env.id == "hex"))

    _, obs = jax.eval_shape(reset, jax.random.key(0))
    spec = EnvSpec(
        num_actions=env.num_actions, env_id=env.id, num_players=env.num_players,
        action_mask="action_mask" if is_masked else "", **spec_fields(obs),
    )  # fmt: skip
    has_text = env.id.startswith(STONES)
    made = Env(spec, reset, step, random.split, render=render if has_text else None)
    return time_limit(made, limit) if limit else made
