"""Adapter for gymnasium environments on the host, https://gymnasium.farama.org.

`terminated` and `truncated` are gymnasium's; its time limit truncates. A batch is one vector
environment that resets itself at the step that ends an episode (`AutoresetMode.SAME_STEP`).
"""

import copy
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any, NoReturn

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from gymnasium.envs import registration
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from rljax.envs.adapters import checked_params
from rljax.envs.host import host_env
from rljax.types import Env, EnvSpec, PyTree, Step

NEEDS = {"gymnasium.envs.box2d": "Box2D", "gymnasium.envs.mujoco": "mujoco"}
CARTPOLE = "gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv"
# written in JAX, which a callback of a program of JAX must not call
IN_JAX = ("gymnasium.envs.phys2d", "gymnasium.envs.tabular")


def registered() -> list[str]:
    """Returns the ids in gymnasium's registry that can be made here, the newest version of each.

    Left out are those whose dependencies are not installed, and those that are written in JAX.
    """
    newest: dict[tuple[Any, str], Any] = {}
    for spec in registration.registry.values():
        name = spec.namespace, spec.name
        if _is_installed(spec) and (spec.version or 0) >= (getattr(newest.get(name), "version", 0)):
            newest[name] = spec
    ids = [spec.id for spec in newest.values()]
    if importlib.util.find_spec("ale_py"):
        from rljax.envs import atari

        ids += [f"ALE/{name}-v5" for name in atari.registered()]
    return ids


def _is_installed(spec: Any) -> bool:
    if not isinstance(spec.entry_point, str):  # a class, or a function that raises an error
        return inspect.isclass(spec.entry_point)
    module = spec.entry_point.partition(":")[0]
    package = module.partition(".")[0]
    needs = [package, *(name for prefix, name in NEEDS.items() if module.startswith(prefix))]
    known = package != "ale_py" and not module.startswith(IN_JAX)
    return known and all(importlib.util.find_spec(name) for name in needs)


def from_id(name: str, **params: Any) -> Env:
    """Returns a registered environment, as an `Env` on the host with `Env.batch`.

    Args:
      name: one of `registered()`. `ALE/Breakout-v5` is `atari/Breakout` with the sticky actions
        (`repeat_action_probability=0.25`) of the original.
      params: arguments of the environment; `max_episode_steps`; and `vectorization_mode`, "sync"
        (one process, the default), "async" (a new process for each environment, so that a script
        needs `if __name__ == "__main__":`), or for CartPole-v1 "vector_entry_point" (all
        environments in one array of NumPy, the default there).

    Raises:
      ValueError: an unknown parameter, or a space without a counterpart in `EnvSpec`.
    """
    if name.startswith("ALE/"):
        from rljax.envs import atari

        params = {"repeat_action_probability": 0.25} | params
        made = atari.from_id(name.removeprefix("ALE/").rpartition("-v")[0], **params)
        return made._replace(spec=made.spec._replace(env_id=f"gymnasium/{name}"))
    return _from_spec(gymnasium.spec(name), f"gymnasium/{name}", params)


def from_object(env: Any, env_params: Any = None, **params: Any) -> Env:
    """Returns an environment object as an `Env` on the host; a batch consists of copies of it.

    Copies are made from the registration of the environment, or by `copy.deepcopy` if it has none.

    Raises:
      ValueError: `env` is a vector environment, cannot be copied, or see `from_id`.
    """
    if isinstance(env, VectorEnv):
        raise ValueError(
            f"`env` is a {type(env).__name__}, but it must be a single environment: rljax makes "
            "the vector environment itself."
        )
    name = env.spec.id if env.spec else type(env.unwrapped).__name__
    params = dict(env_params or {}) | params
    if env.spec is not None:
        return _from_spec(env.spec, name, params)
    limit = checked_params(params, {"max_episode_steps": 0}, name).get("max_episode_steps")

    def make_one():
        try:
            made = copy.deepcopy(env)
        except Exception as error:
            raise ValueError(
                f"{name} cannot be copied ({error}): register it with `gymnasium.register` and "
                'pass its id, "gymnasium/ID".'
            ) from error
        return gymnasium.wrappers.TimeLimit(made, limit) if limit else made

    def make_vector(num_envs):
        mode = AutoresetMode.SAME_STEP
        return SyncVectorEnv([make_one] * num_envs, copy=False, autoreset_mode=mode)

    return _from_vector(make_vector, name, limit or 0)


def _from_spec(spec: Any, name: str, params: dict[str, Any]) -> Env:
    entry = spec.entry_point
    creator = registration.load_env_creator(entry) if isinstance(entry, str) else entry
    arguments = inspect.signature(creator).parameters.values()
    known = {x.name: x.default for x in arguments if x.kind != x.VAR_KEYWORD} | spec.kwargs
    known |= {"max_episode_steps": 0, "vectorization_mode": "sync"}
    params = checked_params(params, known, name)
    is_cartpole = spec.vector_entry_point == CARTPOLE and not spec.additional_wrappers
    modes = ("vector_entry_point",) * is_cartpole + ("sync", "async")
    mode = params.pop("vectorization_mode", modes[0])
    if mode not in modes:
        known_modes = " or ".join(f'"{each}"' for each in modes)
        raise ValueError(f"`vectorization_mode` is {mode!r}, but it must be {known_modes}.")
    limit = params.get("max_episode_steps", spec.max_episode_steps)

    def make_vector(num_envs):
        if mode == "vector_entry_point":
            return gymnasium.make_vec(spec, num_envs, vectorization_mode=mode, **params)
        vector_kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP, "copy": False}
        if mode == "async":
            vector_kwargs["context"] = "spawn"  # JAX has threads, which a fork does not survive
        return gymnasium.make_vec(
            spec, num_envs, vectorization_mode=mode, vector_kwargs=vector_kwargs,
            disable_env_checker=True, **params,
        )  # fmt: skip

    pool = CartPolePool if mode == "vector_entry_point" else VectorPool
    return _from_vector(make_vector, name, limit or 0, pool)


def _from_vector(
    make_vector: Callable[[int], VectorEnv], name: str, limit: int, pool: Any = None
) -> Env:
    example = make_vector(1)
    obs_space, action_space = example.single_observation_space, example.single_action_space
    example.close()
    first = _convert(obs_space, obs_space.sample(), name)
    spec = EnvSpec(
        obs_shape=jax.tree.map(np.shape, first),
        obs_dtype=jax.tree.map(lambda x: x.dtype.name, first),
        num_states=int(obs_space.n) if isinstance(obs_space, spaces.Discrete) else 0,
        max_episode_steps=limit, env_id=name, **_action_fields(action_space, name),
    )  # fmt: skip
    pool = pool or VectorPool
    return host_env(spec, lambda num_envs: pool(make_vector(num_envs), name))


def _action_fields(space: Any, name: str) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete):
        return {"num_actions": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return {"num_actions": tuple(map(int, space.nvec))}
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return {"num_actions": (2,) * space.shape[0]}
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (np.asarray(x, np.float32) for x in (space.low, space.high))
        return {"action_shape": space.shape, "action_low": low, "action_high": high}
    _refuse(name, "actions", space, "Discrete, a MultiDiscrete, a MultiBinary or a Box of floats")


def _refuse(name: str, what: str, space: Any, known: str) -> NoReturn:
    raise ValueError(
        f"{name} has {what} in the space {space}, but it must be a {known}: wrap the environment."
    )


def converter(name: str, params: dict[str, Any]) -> Callable[[Any], PyTree]:
    """Returns the function from observations of `gymnasium.make(name)` to those of `from_id`."""
    kwargs = {key: value for key, value in params.items() if key != "vectorization_mode"}
    env = gymnasium.make(name, **kwargs)
    env.close()
    return lambda obs: _convert(env.observation_space, obs, name)


def _convert(space: Any, x: Any, name: str) -> PyTree:
    """Returns an observation, or a batch of them, as arrays of their own.

    A box of pixels stays uint8 and becomes float32 otherwise, a MultiBinary becomes bool, a Dict a
    dict and a Tuple a tuple. A Discrete space becomes an index, int32, and within another space a
    bool one-hot vector; so does a MultiDiscrete space, with its parts side by side.
    """
    if isinstance(space, spaces.Discrete):
        return np.array(x, np.int32) - np.int32(space.start)
    return _convert_field(space, x, name)


def _convert_field(space: Any, x: Any, name: str) -> PyTree:
    if isinstance(space, spaces.Dict):
        return {key: _convert_field(part, x[key], name) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_convert_field(*pair, name) for pair in zip(space.spaces, x, strict=True))
    if isinstance(space, spaces.Box):
        return np.array(x, np.uint8 if space.dtype == np.uint8 else np.float32)
    if isinstance(space, spaces.MultiBinary):
        return np.array(x, np.bool_)
    if isinstance(space, spaces.Discrete):
        return (np.asarray(x) - space.start)[..., None] == np.arange(space.n)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        codes, sizes = np.asarray(x) - space.start, space.nvec.tolist()
        parts = [codes[..., i, None] == np.arange(size) for i, size in enumerate(sizes)]
        return np.concatenate(parts, axis=-1)
    _refuse(name, "observations", space, "Box, a Discrete, a MultiDiscrete, a Dict or a Tuple")


class VectorPool:
    """A vector environment of gymnasium as a `host.Pool`."""

    def __init__(self, env: Any, name: str):
        """Wraps a vector environment that resets itself in the same step."""
        self._env, self._space, self._name = env, env.single_observation_space, name
        self.close = env.close
        action_space = env.single_action_space
        self._start = getattr(action_space, "start", 0)
        self._dtype = action_space.dtype

    def reset(self, seeds: np.ndarray) -> PyTree:
        """Seeds each environment and resets it."""
        return _convert(self._space, self._env.reset(seed=seeds.tolist())[0], self._name)

    def step(self, action: np.ndarray) -> Step:
        """Takes one step; the last observation of an episode is `final_obs` of gymnasium."""
        action = (action + self._start).astype(self._dtype)
        obs, reward, terminated, truncated, info = self._env.step(action)
        obs = _convert(self._space, obs, self._name)
        next_obs = obs
        if "final_obs" in info:
            next_obs = jax.tree.map(np.copy, obs)
            for i in np.flatnonzero(info["_final_obs"]):
                final = _convert(self._space, info["final_obs"][i], self._name)
                jax.tree.map(lambda rows, row: rows.__setitem__(i, row), next_obs, final)
        truncated = truncated & ~terminated
        return Step(obs, reward.astype(np.float32), terminated, truncated, next_obs)


class CartPolePool(VectorPool):
    """gymnasium's vectorized CartPole, as a `host.Pool`, in a third of the time of copies.

    It resets an environment in the step after an episode has ended, and that step is no
    transition. This class resets it before, by the same random draw.
    """

    def reset(self, seeds: np.ndarray) -> PyTree:
        """Seeds all environments by the first seed, because they share one generator."""
        return self._env.reset(seed=int(seeds[0]))[0]

    def step(self, action: np.ndarray) -> Step:
        """Takes one step and resets where an episode ended."""
        env = self._env.unwrapped
        next_obs, reward, terminated, truncated, _ = env.step(action)
        obs, done = next_obs, terminated | truncated
        if done.any():
            env.state[:, done] = env.np_random.uniform(env.low, env.high, (4, done.sum()))
            env.steps[done], env.prev_done[done] = 0, False
            obs = env.state.T.astype(np.float32)
        return Step(obs, reward, terminated, truncated & ~terminated, next_obs)
