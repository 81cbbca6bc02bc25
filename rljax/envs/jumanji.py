"""Adapter for jumanji, https://github.com/instadeepai/jumanji: games, packing and routing.

An end is jumanji's last step with discount 0. Most environments of jumanji tell their time limit
in the same way. The adapter sets that limit one step later than its own, which truncates. Rewards
of several agents are added up; one policy acts for all of them.

Observations are the NamedTuples of jumanji, in a form that networks take:
- Integers that are categories (`CODES`) are one-hot bools, along a new last axis. In Game2048 the
  categories are the exponents 0 to 17.
- Integers that are 0 or 1 are bools, and so are the `blocks` of FlatPack.
- Numbers are float32. Those with known bounds are divided by the largest, the step counter by the
  time limit; the coordinates in RobotWarehouse have no bounds and stay.
- Grids (`GRIDS`) are images [H, W, C]; other arrays have two axes at most.
- The positions in PacMan are channels of its grid: passages, player, pellets, power-ups, ghosts.
  Its score, the return so far, is left out.

An action of several integers is one of prod(num_values) discrete actions where its mask is of
shape `num_values` or missing (Tetris, RubiksCube), and several discrete actions where the mask has
a row for each (Connector). Where no action is legal, in FlatPack and for agents of MMST that are
finished, the mask allows all: they change nothing.
"""

import copy
import inspect
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jumanji import registration, specs
from jumanji.env import Environment
from jumanji.environments.routing.mmst.env import MMST
from jumanji.environments.routing.pac_man.env import PacMan
from jumanji.environments.swarms.search_and_rescue.env import SearchAndRescue
from jumanji.wrappers import Wrapper

from rljax.envs.adapters import checked_params, spec_fields, strongly_typed
from rljax.envs.wrappers import time_limit
from rljax.ops import random
from rljax.types import Array, Env, EnvSpec, PyTree, Step

CODES = frozenset({
    "board", "grid", "puzzle", "cube", "colors", "current_node_index", "node_types", "position",
    "positions", "trajectory", "row", "col", "agents_locations", "empty_tile_position",
    "ops_machine_ids", "machines_job_ids",
})  # fmt: skip
GRIDS = frozenset({"board", "grid", "puzzle", "walls", "tetromino"})
STEP_COUNTERS = ("step", "step_count")
DOWNLOADS = "Sokoban-v0"


def registered() -> list[str]:
    """Returns the names of all environments that are registered in jumanji."""
    return sorted(registration.registered_environments())


def unavailable(name: str) -> str:
    """Returns why an environment cannot be made, as a sentence; empty if it can."""
    if name != DOWNLOADS:
        return ""
    return (
        f"jumanji/{name} would download its levels: set its parameter `generator`, for example to "
        "jumanji.environments.routing.sokoban.generator.SimpleSolveGenerator()."
    )


def from_id(name: str, **params: Any) -> Env:
    """Returns a registered environment of jumanji as an `Env` whose `step` does not reset.

    Args:
      name: one of `registered()`.
      params: arguments of its class, such as `generator`, and `max_episode_steps`.

    Raises:
      ValueError: an unknown parameter, or levels that would be downloaded.
    """
    if "generator" not in params and (reason := unavailable(name)):
        raise ValueError(reason)
    env = registration.make(name, **{key: params[key] for key in params if key == "generator"})
    arguments = inspect.signature(type(env)).parameters
    limit = {key: params.pop(key) for key in ("max_episode_steps",) if key in params}
    if limit and "time_limit" in arguments:  # arrays of the state may have this length
        params["time_limit"] = limit["max_episode_steps"]
    known = {key: argument.default for key, argument in arguments.items()}
    if params:
        env = registration.make(name, **checked_params(params, known, f"jumanji/{name}"))
    made = from_object(env, **limit)
    return made._replace(spec=made.spec._replace(env_id=f"jumanji/{name}"))


def from_object(env: Any, env_params: None = None, **params: Any) -> Env:
    """Returns an environment object of jumanji as an `Env` whose `step` does not reset.

    Args:
      env: a `jumanji.Environment` without wrappers.
      env_params: None; the parameters of jumanji are arguments of the class.
      params: only `max_episode_steps`, by default jumanji's `time_limit`.

    Raises:
      ValueError: not an environment of jumanji, a wrapper, or an unknown parameter.
    """
    name = type(env).__name__
    if not isinstance(env, Environment) or isinstance(env, Wrapper):
        raise ValueError(f"{name} is not an environment of jumanji without wrappers.")
    if env_params is not None:
        raise ValueError(f"{name} of jumanji has no parameter object: leave out `env_params`.")
    own_limit = getattr(env, "time_limit", None)
    limit = checked_params(params, {"max_episode_steps": 0}, name).get("max_episode_steps")
    limit = limit or own_limit
    obs_spec, action_spec = env.observation_spec, env.action_spec  # arrays, so made outside `jit`
    env = _with_later_limit(env, limit) if own_limit else env
    first_obs = jax.eval_shape(env.reset, jax.random.key(0))[1].observation
    is_masked = hasattr(first_obs, "action_mask")
    actions, decode = _actions(action_spec, getattr(first_obs, "action_mask", None))

    is_several = isinstance(actions.get("num_actions"), tuple)

    def observe(obs):
        if isinstance(env, PacMan):
            obs = _pac_man_channels(obs)
        obs = _converted(obs, obs_spec, "", limit)
        if not is_masked:
            return obs
        mask = obs.action_mask if is_several else obs.action_mask.reshape(-1)
        mask |= ~mask.any(axis=-1, keepdims=True)
        return obs._replace(action_mask=mask.reshape(-1))

    def reset(key):
        state, timestep = env.reset(key)
        return strongly_typed(state), observe(timestep.observation)

    def step(state, action, key):
        with warnings.catch_warnings():  # of JAX, for BinPack
            warnings.filterwarnings("ignore", "scatter inputs have incompatible types")
            state, timestep = env.step(state, decode(action))
        goes_on = (timestep.discount > 0).any()
        terminated, truncated = timestep.last() & ~goes_on, timestep.last() & goes_on
        obs, reward = observe(timestep.observation), jnp.float32(timestep.reward).sum()
        return strongly_typed(state), Step(
            obs, reward, terminated, truncated, obs, timestep.extras or {}
        )

    _, obs = jax.eval_shape(reset, jax.random.key(0))
    mask = "action_mask" if is_masked else ""
    spec = EnvSpec(env_id=name, action_mask=mask, **actions, **spec_fields(obs))
    made = Env(spec, reset, step, random.split)
    return made if limit is None else time_limit(made, int(limit))


def _with_later_limit(env: Any, limit: Any) -> Any:
    """Returns a copy whose own time limit is one step later than `limit`."""
    if isinstance(env, MMST) and limit > env.time_limit:
        raise ValueError(
            f"`max_episode_steps` is {limit}, but this MMST was made for {env.time_limit} steps: "
            "set `time_limit` where it is made."
        )
    env = copy.copy(env)
    if isinstance(env, SearchAndRescue):  # rewards fall to 0 at the limit
        reward = env._reward_fn
        vars(env)["_reward_fn"] = lambda found, step, _: reward(found, step, limit)
    env.time_limit = limit + 1
    return env


def _actions(spec: Any, mask: Any) -> tuple[dict[str, Any], Any]:
    """Returns the fields of `EnvSpec` that describe actions, and `decode(action)` for jumanji."""
    if not jnp.issubdtype(spec.dtype, jnp.integer):
        low, high = (np.broadcast_to(x, spec.shape) for x in (spec.minimum, spec.maximum))
        fields = {"action_shape": tuple(spec.shape), "action_low": low, "action_high": high}
        return fields, lambda action: action
    if isinstance(spec, specs.DiscreteArray):
        return {"num_actions": int(spec.num_values)}, lambda action: action.astype(spec.dtype)
    sizes = np.broadcast_to(np.asarray(spec.maximum), spec.shape).reshape(-1) + 1
    sizes = tuple(map(int, sizes))
    if mask is not None and mask.shape != sizes:  # one row for each action
        num_actions = (int(mask.shape[-1]),) * len(sizes)
        return {"num_actions": num_actions}, lambda action: action.astype(spec.dtype)

    def unravel(action):
        return jnp.stack(jnp.unravel_index(action, sizes)).astype(spec.dtype)

    return {"num_actions": int(np.prod(sizes))}, unravel


def _converted(x: PyTree, spec: Any, name: str, limit: Any) -> PyTree:
    """Returns a field of an observation in the form that the module describes."""
    if x is None or name == "action_mask":
        return x
    if fields := getattr(x, "_fields", getattr(x, "__dataclass_fields__", ())):
        values = {key: _converted(getattr(x, key), spec[key], key, limit) for key in fields}
        return x._replace(**values) if hasattr(x, "_replace") else values
    x = jnp.asarray(x)
    is_integer = jnp.issubdtype(x.dtype, jnp.integer)
    low, high = _bounds(spec, name, limit)
    if name == "blocks" or (is_integer and (low, high) == (0, 1)):
        x = x > 0
    elif is_integer and name in CODES:
        x = jax.nn.one_hot(x - low, high - low + 1, dtype=jnp.bool)
    elif x.dtype != jnp.bool:
        largest = max(abs(low), abs(high))
        x = jnp.float32(x) / (largest if 1 < largest < np.inf else 1)
    if name in GRIDS:
        return x.reshape(*x.shape[:2], -1)
    return x.reshape(len(x), -1) if x.ndim > 2 else x


def _bounds(spec: Any, name: str, limit: Any) -> tuple[Any, Any]:
    """Returns the smallest and the largest value of a field, infinite if they are not known."""
    if name in STEP_COUNTERS and limit:
        return 0, int(limit)
    if isinstance(spec, specs.BoundedArray):
        return np.asarray(spec.minimum).min().item(), np.asarray(spec.maximum).max().item()
    return (0, 17) if name == "board" else (-np.inf, np.inf)  # 2^17, the largest tile of Game2048


def _pac_man_channels(obs: Any) -> Any:
    """Returns an observation of PacMan with all positions as channels of its grid."""

    def mark(column: Array, row: Array) -> Array:
        grid = jnp.zeros(obs.grid.shape, jnp.bool).at[row, column].set(True)
        return grid.at[0, 0].set(False)  # where jumanji puts what was eaten

    player = obs.player_locations
    channels = [obs.grid > 0, mark(player.y, player.x)]
    for places in (obs.pellet_locations, obs.power_up_locations, obs.ghost_locations):
        channels.append(mark(places[:, 0], places[:, 1]))
    return obs._replace(
        grid=jnp.stack(channels, axis=-1), player_locations=None, pellet_locations=None,
        power_up_locations=None, ghost_locations=None, score=None,
    )  # fmt: skip
