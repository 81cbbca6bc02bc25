"""Adapter for navix, MiniGrid in JAX, https://github.com/epignatelli/navix.

An end is navix's `is_termination`, the time limit its `is_truncation`. The limit is navix's own
option `max_steps`, 100 by default, because a penalty of the reward may depend on it. The adapter
calls navix's `_step`, which does not reset.

Observations are what the agent sees in front of it, 7 x 7 tiles, or with
`observation="symbolic"` the whole grid. navix describes a tile by three codes: the object, its
color, and its state (direction of the agent, or whether a door is open, closed or locked). Here
they are one-hot, 21 bools a tile. In GoToDoor the observation is a dict of the `tiles` and the
`mission`, the color of the door, which navix leaves out. "rgb" and "rgb_first_person" are images
of 8 x 8 pixels a tile.
"""

import dataclasses
from typing import Any

import jax
import navix
from navix import observations

from rljax.envs.adapters import checked_params, one_hot, spec_fields, strongly_typed
from rljax.ops import random
from rljax.types import Env, EnvSpec, Step

NUM_COLORS = 6
TILE_CODES = (11, NUM_COLORS, 4)  # categories of object, color and state
OBSERVATIONS = {
    "symbolic_first_person": observations.symbolic_first_person,
    "symbolic": observations.symbolic,
    "rgb_first_person": observations.rgb_first_person,
    "rgb": observations.rgb,
}
NOT_PARAMS = (  # fields of an environment that follow from others
    "max_steps", "observation_fn", "observation_space", "action_space", "action_set",
    "reward_space",
)  # fmt: skip


def registered() -> list[str]:
    """Returns the names of all environments that are registered in navix."""
    return list(navix.registry())


def from_id(name: str, **params: Any) -> Env:
    """Returns a registered environment of navix as an `Env` whose `step` does not reset.

    Args:
      name: one of `registered()`.
      params: see `from_object`; `observation` is "symbolic_first_person" by default.

    Raises:
      ValueError: an unknown parameter or observation.
    """
    params = {"observation": "symbolic_first_person"} | params
    made = from_object(navix.make(name), **params)
    return made._replace(spec=made.spec._replace(env_id=f"navix/{name}"))


def from_object(env: Any, env_params: None = None, **params: Any) -> Env:
    """Returns an environment object of navix as an `Env` whose `step` does not reset.

    Args:
      env: a `navix.Environment`.
      env_params: None; the parameters of navix are fields of the environment.
      params: new values of the fields, such as `random_start`; `observation`, one of
        `OBSERVATIONS`; and `max_episode_steps`.

    Raises:
      ValueError: not an environment of navix, or an unknown parameter or observation.
    """
    name = type(env).__name__
    if not isinstance(env, navix.Environment):
        raise ValueError(f"{name} is not an environment of navix, a `navix.Environment`.")
    if env_params is not None:
        raise ValueError(f"{name} of navix has no parameter object: leave out `env_params`.")
    limit = params.pop("max_episode_steps", env.max_steps)
    env = env.replace(max_steps=limit)  # pyright: ignore[reportAttributeAccessIssue]
    if (observation := params.pop("observation", None)) is not None:
        env = env.replace(observation_fn=_observation_named(observation))
    fields = {field.name: getattr(env, field.name) for field in dataclasses.fields(env)}
    known = {key: value for key, value in fields.items() if key not in NOT_PARAMS}
    env = env.replace(**checked_params(params, known | {"observation": ""}, name))
    has_symbols = env.observation_fn in (observations.symbolic, observations.symbolic_first_person)

    def observe(timestep):
        tiles = timestep.observation
        tiles = one_hot(tiles, TILE_CODES) if has_symbols else tiles
        if (mission := timestep.state.mission) is None:
            return tiles
        return {"tiles": tiles, "mission": one_hot(mission.colour.reshape(1), (NUM_COLORS,))}

    def outputs(timestep):
        if has_symbols:  # without the sprites, which take more memory than all the rest
            timestep = timestep.replace(state=timestep.state.replace(cache=None))
        return strongly_typed(timestep), observe(timestep)

    def reset(key):
        return outputs(env.reset(key))

    def step(timestep, action, key):
        timestep, obs = outputs(env._step(timestep, action))
        terminated, truncated = timestep.is_termination(), timestep.is_truncation()
        return timestep, Step(obs, timestep.reward, terminated, truncated, obs)

    _, obs = jax.eval_shape(reset, jax.random.key(0))
    spec = EnvSpec(
        num_actions=len(env.action_set), max_episode_steps=limit, env_id=name, **spec_fields(obs)
    )
    return Env(spec, reset, step, random.split)


def _observation_named(name: Any) -> Any:
    if name not in OBSERVATIONS:
        names = ", ".join(OBSERVATIONS)
        raise ValueError(f"`observation` is {name!r}, but it must be one of {names}.")
    return OBSERVATIONS[name]
