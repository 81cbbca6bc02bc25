"""Adapter for MuJoCo Playground, https://github.com/google-deepmind/mujoco_playground.

An end is the `done` of an environment, which is termination alone; the time limit is the
`episode_length` of its config. In most tasks of the DeepMind control suite, `done` only tells that
the simulation diverged; NaN in the observation and the reward of that step become 0. Actions are
from -1 to 1 in every dimension.

The physics is MJX in JAX, `impl="jax"`; "warp", which needs a GPU, is Playground's own default.
Locomotion and manipulation need MuJoCo Menagerie, which Playground would download.
"""

from typing import Any

import jax
import jax.numpy as jnp
from mujoco_playground import dm_control_suite, registry
from mujoco_playground._src import mjx_env, wrapper

from rljax.envs.adapters import checked_params, only_time_limit, simulation
from rljax.types import Env

NOT_PARAMS = ("episode_length", "action_repeat")  # `action_repeat` is read by wrappers alone


def registered() -> list[str]:
    """Returns the names of all environments of Playground, also those that need Menagerie."""
    return list(registry.ALL_ENVS)


def unavailable(name: str) -> str:
    """Returns why an environment cannot be made, as a sentence; empty if it can."""
    if name in dm_control_suite.ALL_ENVS or mjx_env.MENAGERIE_PATH.exists():
        return ""
    return (
        f"playground/{name} needs the models of MuJoCo Menagerie in {mjx_env.MENAGERIE_PATH}: "
        f"clone https://github.com/google-deepmind/mujoco_menagerie there, at commit "
        f"{mjx_env.MENAGERIE_COMMIT_SHA[:12]}."
    )


def from_id(name: str, **params: Any) -> Env:
    """Returns a registered environment of Playground as an `Env` whose `step` does not reset.

    Args:
      name: one of `registered()`.
      params: values of its config, such as `ctrl_dt` or, of a nested config,
        `{"reward_config.scales.action_rate": -0.1}`; and `max_episode_steps`.

    Raises:
      ValueError: an unknown parameter, or files of MuJoCo Menagerie are missing.
    """
    if reason := unavailable(name):
        raise ValueError(reason)
    config = registry.get_default_config(name)
    limit = params.pop("max_episode_steps", config.episode_length)
    known = {key: value for key, value in _flattened(config).items() if key not in NOT_PARAMS}
    overrides: dict[str, Any] = {"impl": "jax"} if "impl" in known else {}
    overrides |= checked_params(params, known, f"playground/{name}")
    env = registry.load(name, config_overrides=overrides)
    return simulation(_WithoutNaN(env), f"playground/{name}", limit)


def from_object(env: Any, env_params: None = None, **params: Any) -> Env:
    """Returns an environment object of Playground as an `Env` whose `step` does not reset.

    Args:
      env: an `MjxEnv`, without Playground's wrappers for training.
      env_params: None; the parameters of Playground are in the config of the environment.
      params: only `max_episode_steps`.

    Raises:
      ValueError: not an environment of Playground, one with a wrapper for training, or another
        parameter.
    """
    name = type(env).__name__
    if not isinstance(env, mjx_env.MjxEnv):
        raise ValueError(f"{name} is not an environment of MuJoCo Playground, an `MjxEnv`.")
    if isinstance(env, wrapper.Wrapper):
        raise ValueError(
            f"{name} of MuJoCo Playground is for brax's training: pass the environment without "
            "it, as `mujoco_playground.registry.load` returns it. rljax resets and batches it."
        )
    default: Any = env._config.get("episode_length", 1000)
    limit = only_time_limit(env_params, params, default, name)
    return simulation(_WithoutNaN(env), name, limit)


class _WithoutNaN:
    """An environment in whose last step NaN in the observation and the reward are 0."""

    def __init__(self, env: Any):
        self.env, self.action_size, self.reset = env, env.action_size, env.reset

    def step(self, state, action):
        state = self.env.step(state, action)

        def finite(x):
            return jnp.where(state.done.astype(bool), jnp.nan_to_num(x, posinf=0, neginf=0), x)

        return state.replace(obs=jax.tree.map(finite, state.obs), reward=finite(state.reward))


def _flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the values of a nested config by their dotted names."""
    flat = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            flat |= _flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
