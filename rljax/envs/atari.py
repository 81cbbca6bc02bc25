"""Adapter for Atari 2600 games of the Arcade Learning Environment, https://ale.farama.org.

ALE emulates and preprocesses a batch of games in C++ threads: observations are the last 4 frames,
grey, uint8 `[84, 84, 4]`; an action lasts 4 frames, of which the last two are maximized; an
episode starts after up to 30 random frames without an action. `terminated` is the end of the game
and `truncated` the time limit. Each batch resets itself at the step that ends an episode.

Rewards are clipped to [-1, 1] as in Mnih et al. (2015). `Step.info["unclipped_reward"]` holds the
reward of the game, and the returns in metrics and evaluations are sums of it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ale_py import roms
from ale_py.registration import rom_id_to_name
from ale_py.vector_env import AtariVectorEnv

from rljax.envs.adapters import checked_params
from rljax.envs.host import host_env
from rljax.types import Env, EnvSpec, PyTree, Step

TWO_PLAYERS = ("combat", "joust", "maze_craze", "warlords")  # games without a mode of one player
DEFAULTS: dict[str, Any] = {  # parameters of `AtariVectorEnv` and their values
    "max_episode_steps": 27_000,  # 30 minutes of play
    "repeat_action_probability": 0.0, "full_action_space": False, "img_height": 84,
    "img_width": 84, "grayscale": True, "stack_num": 4, "frameskip": 4, "maxpool": True,
    "noop_max": 30, "episodic_life": False, "reward_clipping": True, "use_fire_reset": True,
    "num_threads": 0,
}  # fmt: skip


def _names() -> dict[str, str]:
    """Returns the ids of ROMs by the names of games."""
    return {rom_id_to_name(rom): rom for rom in roms.get_all_rom_ids() if rom not in TWO_PLAYERS}


def registered() -> list[str]:
    """Returns the names of all games of one player."""
    return sorted(_names())


def from_id(name: str, **params: Any) -> Env:
    """Returns a game as an `Env` on the host, with `Env.batch`.

    Args:
      name: one of `registered()`.
      params: new values of `DEFAULTS`. With `episodic_life`, the loss of a life is a termination,
        and the returns in the metrics are those of one life. `num_threads=0` uses all cores.

    Raises:
      ValueError: an unknown parameter.
    """
    options = DEFAULTS | checked_params(params, DEFAULTS, f"atari/{name}")
    limit, clipped = options.pop("max_episode_steps"), options.pop("reward_clipping")
    options["max_num_frames_per_episode"] = limit * options["frameskip"]

    def make_pool(num_envs):
        env = AtariVectorEnv(
            _names()[name], num_envs, autoreset_mode="SameStep", reward_clipping=False, **options
        )
        return AtariPool(env, clipped)

    example = make_pool(1)
    shape, num_actions = example.space.shape, int(example.num_actions)
    colors = () if options["grayscale"] else (3,)
    height_width, channels = shape[1:3], options["stack_num"] * (colors[0] if colors else 1)

    def channels_last(obs):
        frames = jnp.moveaxis(obs, 1, 3)  # [B, H, W, frames, ...]
        return frames.reshape(*frames.shape[:3], channels)

    spec = EnvSpec(
        obs_shape=(*height_width, channels), obs_dtype="uint8", num_actions=num_actions,
        max_episode_steps=limit, env_id=f"atari/{name}",
    )  # fmt: skip
    return host_env(
        spec, make_pool, {"unclipped_reward": np.float32}, channels_last,
        jax.ShapeDtypeStruct(shape, np.uint8),
    )  # fmt: skip


def from_object(env: Any, env_params: Any = None, **params: Any) -> Env:
    """Refuses environment objects of ALE.

    Raises:
      ValueError: always; games are made from their ids.
    """
    raise ValueError(
        f'`env` is a {type(env).__name__}: pass the id of the game, such as "atari/Breakout".'
    )


class AtariPool:
    """A vector environment of ALE as a `host.Pool`."""

    def __init__(self, env: Any, clip_rewards: bool):
        """Wraps a vector environment that resets itself in the same step."""
        self._env, self._clip_rewards = env, clip_rewards
        self.space = env.single_observation_space
        self.num_actions = env.single_action_space.n

    def reset(self, seeds: np.ndarray) -> PyTree:
        """Seeds each game and resets it."""
        return self._env.reset(seed=seeds)[0]

    def step(self, action: np.ndarray) -> Step:
        """Takes one step."""
        obs, reward, terminated, truncated, info = self._env.step(action)
        unclipped = reward.astype(np.float32)
        reward = np.clip(unclipped, -1, 1) if self._clip_rewards else unclipped
        next_obs, done = obs, terminated | truncated
        if done.any():  # the rows of the other games hold earlier frames
            done = done.reshape(-1, *(1,) * (obs.ndim - 1))
            next_obs = np.where(done, info["final_obs"], obs)
        return Step(
            obs, reward, terminated, truncated & ~terminated, next_obs,
            {"unclipped_reward": unclipped},
        )  # fmt: skip

    def close(self) -> None:
        """Ends the threads."""
        del self._env
