"""Adapter for XLand-MiniGrid, https://github.com/dunnolab/xland-minigrid.

An end is a last step of discount 0, the time limit a last step of discount 1. The limit is
xminigrid's own `max_steps`, because the reward, 1 - 0.9 time / max_steps, depends on it.

Observations are what the agent sees in front of it. xminigrid describes a tile by two codes, the
object and its color. Here they are one-hot, 25 bools a tile. The agent sees neither its direction
nor what it carries; `xminigrid.wrappers` adds the direction, or the goal and the rules, and an
environment object with these wrappers is observed as a dict.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from xminigrid import registration, wrappers
from xminigrid.core.constants import NUM_COLORS, NUM_TILES
from xminigrid.environment import Environment

from rljax.envs.adapters import checked_params, one_hot, spec_fields, strongly_typed
from rljax.ops import random
from rljax.types import Env, EnvSpec, Step

TILE_CODES = (NUM_TILES, NUM_COLORS)  # categories of object and color
AUTO_RESET = (wrappers.GymAutoResetWrapper, wrappers.DmEnvAutoResetWrapper)
NO_TASK = (
    "{} has no task without the parameter `ruleset`. `xminigrid.load_benchmark(name)`, which "
    "downloads a file, has rulesets: pass `ruleset=benchmark.get_ruleset(0)`, or one that you "
    "make with `xminigrid.types.RuleSet`."
)


def registered() -> list[str]:
    """Returns the names of all environments of xminigrid, also those without a task."""
    return list(registration.registered_environments())


def unavailable(name: str) -> str:
    """Returns why an environment cannot be made without parameters; empty if it can."""
    return NO_TASK.format(f"xminigrid/{name}") if name.startswith("XLand") else ""


def from_id(name: str, **params: Any) -> Env:
    """Returns a registered environment of xminigrid as an `Env` whose `step` does not reset.

    Args:
      name: one of `registered()`.
      params: see `from_object`.

    Raises:
      ValueError: an unknown parameter, or an environment of XLand without a `ruleset`.
    """
    if "ruleset" not in params and (reason := unavailable(name)):
        raise ValueError(reason)
    made = from_object(*registration.make(name), **params)
    return made._replace(spec=made.spec._replace(env_id=f"xminigrid/{name}"))


def from_object(env: Any, env_params: Any = None, **params: Any) -> Env:
    """Returns an environment object of xminigrid as an `Env` whose `step` does not reset.

    Args:
      env: an `xminigrid.environment.Environment`, or a wrapper that does not reset.
      env_params: its parameters; None takes `env.default_params()`.
      params: parameters to change, by name, such as `view_size`; `max_episode_steps` sets
        `max_steps`.

    Raises:
      ValueError: not such an environment, an unknown parameter, or an environment of XLand
        without a `ruleset`.
    """
    name = _check_object(env)
    env_params = env.default_params() if env_params is None else env_params
    limit = params.pop("max_episode_steps", env_params.max_steps)
    fields = {
        field.name: getattr(env_params, field.name) for field in dataclasses.fields(env_params)
    }
    known = {key: value for key, value in fields.items() if key not in ("max_steps", "render_mode")}
    env_params = env_params.replace(max_steps=limit, **checked_params(params, known, name))
    if hasattr(env_params, "ruleset") and not np.any(env_params.ruleset.goal):
        raise ValueError(NO_TASK.format(name))
    tiles_shape = (env_params.view_size, env_params.view_size, len(TILE_CODES))

    def observe(timestep):
        def encode(x):
            return one_hot(x, TILE_CODES) if x.shape == tiles_shape else x

        return jax.tree.map(encode, strongly_typed(timestep.observation))

    def reset(key):
        timestep = strongly_typed(env.reset(env_params, key))
        return timestep, observe(timestep)

    def step(timestep, action, key):
        timestep = strongly_typed(env.step(env_params, timestep, action))
        terminated = timestep.last() & (timestep.discount == 0)
        truncated = timestep.last() & ~terminated
        obs = observe(timestep)
        return timestep, Step(obs, timestep.reward, terminated, truncated, obs)

    _, obs = jax.eval_shape(reset, jax.random.key(0))
    spec = EnvSpec(
        num_actions=env.num_actions(env_params), max_episode_steps=limit, env_id=name,
        **spec_fields(obs),
    )  # fmt: skip
    return Env(spec, reset, step, random.split)


def _check_object(env: Any) -> str:
    """Checks that an object is an environment that does not reset itself; returns its name."""
    if not isinstance(env, Environment):
        raise ValueError(
            f"{type(env).__name__} is not an environment of xminigrid, an "
            "`xminigrid.environment.Environment`."
        )
    while isinstance(env, wrappers.Wrapper):
        if isinstance(env, AUTO_RESET):
            raise ValueError(
                f"{type(env).__name__} of xminigrid resets the environment, which hides the last "
                "observation of an episode: pass the environment without it, rljax resets it."
            )
        env = env._env
    return type(env).__name__
