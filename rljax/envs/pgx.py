"""Adapter for pgx, https://github.com/sotetsuk/pgx: 2048 and MinAtar, its games of one player.

An end is pgx's `terminated`. pgx has no time limits, except for Freeway, which it terminates
after 2501 steps; the adapter switches that clock off and truncates after 2500. The observations
of 2048 are a dict of the board and the legal actions, those of MinAtar one image: all its actions
are legal in every state. Rewards are not scaled; those of 2048 reach thousands.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import pgx

from rljax.envs.adapters import checked_params, only_time_limit, spec_fields
from rljax.envs.wrappers import time_limit
from rljax.ops import random
from rljax.types import Env, EnvSpec, Step

TIME_LIMITS = {"minatar-freeway": 2500}
ONE_PLAYER = ("2048", "minatar-")  # names of games of one player start with one of these


def registered() -> list[str]:
    """Returns the names of all games of pgx, also of those that `unavailable` refuses."""
    return list(pgx.available_envs())


def unavailable(name: str) -> str:
    """Returns why a game cannot be made, as a sentence; empty if it can."""
    return "" if name.startswith(ONE_PLAYER) else _refusal(name)


def _refusal(name: str) -> str:
    games = ", ".join(name for name in registered() if name.startswith(ONE_PLAYER))
    return (
        f"pgx/{name} is a game of several players, and the agents of rljax learn games of one "
        f"player: {games}."
    )


def from_id(name: str, **params: Any) -> Env:
    """Returns a game of pgx as an `Env` whose `step` does not reset.

    Args:
      name: one of `registered()`.
      params: arguments of the game's class, such as `sticky_action_prob` of MinAtar, and
        `max_episode_steps`.

    Raises:
      ValueError: a game of several players, or an unknown parameter.
    """
    if reason := unavailable(name):
        raise ValueError(reason)
    game = type(pgx.make(name))  # pyright: ignore[reportArgumentType]
    defaults = {key: x.default for key, x in inspect.signature(game).parameters.items()}
    limit = {key: params.pop(key) for key in ("max_episode_steps",) if key in params}
    made = from_object(game(**checked_params(params, defaults, f"pgx/{name}")), **limit)
    return made._replace(spec=made.spec._replace(env_id=f"pgx/{name}"))


def from_object(env: Any, env_params: None = None, **params: Any) -> Env:
    """Returns a `pgx.Env` of one player as an `Env` whose `step` does not reset.

    Args:
      env: the game.
      env_params: None; the parameters of a game of pgx are arguments of its class.
      params: only `max_episode_steps`.

    Raises:
      ValueError: a game of several players, or an unknown parameter.
    """
    if not isinstance(env, pgx.Env):
        raise ValueError(f"{type(env).__name__} is not a game of pgx, a `pgx.Env`.")
    if env.num_players != 1:
        raise ValueError(_refusal(env.id))
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
        state = env.step(state, action, key)
        obs, reward = observe(state), jnp.float32(state.rewards[0])
        truncated = state.truncated & ~state.terminated
        return state, Step(obs, reward, state.terminated, truncated, obs)

    _, obs = jax.eval_shape(reset, jax.random.key(0))
    spec = EnvSpec(
        num_actions=env.num_actions, env_id=env.id,
        action_mask="action_mask" if is_masked else "", **spec_fields(obs),
    )  # fmt: skip
    made = Env(spec, reset, step, random.split)
    return time_limit(made, limit) if limit else made
