"""Adapter for Craftax and Craftax-Classic, https://github.com/MichaelTMatthews/Craftax.

Craftax tells its time limit, `max_timesteps`, as an end like any other. The adapter raises it out
of reach, so that `done` is termination (death, lava, a beaten boss), and truncates by a limit of
its own: 10,000 steps in Classic, 100,000 in the full game. Episodes of both are generated anew at
every reset. Symbolic observations are one vector, pixels an image of floats from 0 to 1.

`Step.info` has craftax's scores of an episode that ends: `Achievements/NAME`, in percent.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from craftax.craftax_env import make_craftax_env_from_name

from rljax.config import unknown_key
from rljax.envs.adapters import checked_params, spec_fields, strongly_typed
from rljax.envs.wrappers import time_limit
from rljax.ops import random
from rljax.types import Env, EnvSpec, Step

NAMES = (
    "Craftax-Symbolic-v1", "Craftax-Pixels-v1", "Craftax-Classic-Symbolic-v1",
    "Craftax-Classic-Pixels-v1",
)  # fmt: skip
NEVER = 2**31 - 1
METHODS = ("reset_env", "step_env", "default_params", "static_env_params", "num_actions")


def registered() -> list[str]:
    """Returns the names of the environments of Craftax."""
    return list(NAMES)


def from_id(name: str, **params: Any) -> Env:
    """Returns an environment of Craftax as an `Env` whose `step` does not reset.

    Args:
      name: one of `registered()`.
      params: see `from_object`.

    Raises:
      ValueError: an unknown parameter.
    """
    made = from_object(make_craftax_env_from_name(name, auto_reset=False), **params)
    return made._replace(spec=made.spec._replace(env_id=f"craftax/{name}"))


def from_object(env: Any, env_params: Any = None, **params: Any) -> Env:
    """Returns an environment object of Craftax as an `Env` whose `step` does not reset.

    Args:
      env: an environment of Craftax, with or without auto-reset, which is not used.
      env_params: its parameters; None takes `env.default_params`.
      params: fields of its parameters or static parameters, such as `day_length` or
        `max_zombies`; and `max_episode_steps`.

    Raises:
      ValueError: not an environment of Craftax, or an unknown parameter.
    """
    if not all(hasattr(env, method) for method in METHODS):
        raise ValueError(f"{type(env).__name__} is not an environment of Craftax.")
    name, static = env.name, env.static_env_params
    env_params = env.default_params if env_params is None else env_params
    limit = params.pop("max_episode_steps", env_params.max_timesteps)
    if "max_timesteps" in params:
        raise unknown_key("max_timesteps", ["max_episode_steps"], name)
    known_static, known = (
        {x.name: getattr(y, x.name) for x in dataclasses.fields(y)} for y in (static, env_params)
    )
    params = checked_params(params, known | known_static, name)
    changed = {key: value for key, value in params.items() if key in known}
    env_params = env_params.replace(**changed | {"max_timesteps": NEVER})
    if changed_static := {key: params[key] for key in params if key in known_static}:
        env = type(env)(static.replace(**changed_static))

    def reset(key):
        obs, state = env.reset_env(key, env_params)
        return strongly_typed(state), strongly_typed(obs)

    def step(state, action, key):
        obs, state, reward, done, info = env.step_env(key, state, action, env_params)
        state, obs = strongly_typed((state, obs))
        reward, done = jnp.asarray(reward, jnp.float32), jnp.asarray(done, bool)
        info = {key: value for key, value in info.items() if key != "discount"}
        return state, Step(obs, reward, done, jnp.zeros_like(done), obs, info)

    _, obs = jax.eval_shape(reset, jax.random.key(0))
    spec = EnvSpec(num_actions=env.num_actions, env_id=name, **spec_fields(obs))
    return time_limit(Env(spec, reset, step, random.split), limit)
