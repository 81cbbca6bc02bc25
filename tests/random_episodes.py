"""Episodes of random actions, as scenes."""

import importlib

import jax
import numpy as np

from rljax.envs import SUITES
from rljax.envs.value_checks import random_action
from rljax.envs.wrappers import batched
from rljax.rendering import frames
from rljax.rendering.gymnax_tasks import maze_text


def random_scenes(env_id, num_steps=3, seed=0, **params):
    """Returns the scenes of an episode of random actions, at most `num_steps + 1`."""
    with jax.numpy_rank_promotion("allow"):  # for some environments of other packages
        return _random_scenes(env_id, num_steps, seed, params)


def _random_scenes(env_id, num_steps, seed, params):
    suite, name = frames.split_id(env_id)
    env = importlib.import_module(SUITES[suite].module).from_id(name, **params)
    render = env.render or (maze_text(name, params) if suite == "gymnax" else None)
    one = env.spec
    env = batched(env, 1)
    step = jax.jit(env.step)
    act = jax.jit(lambda obs, key: random_action(one, jax.tree.map(lambda x: x[0], obs), key)[None])
    state, obs = jax.jit(env.reset)(jax.random.key(seed))

    def scene(state, obs, **taken):
        stacked = jax.tree.map(lambda x: x[None], (state, obs))
        return frames.scenes(*stacked, copy=0, render=render)[0]._replace(**taken)

    scenes = [scene(state, obs)]
    noise = env.sample_noise(jax.random.key(seed + 1), num_steps)
    for t in range(num_steps):
        action = act(obs, jax.random.key(seed + 10 + t))
        state, out = step(state, action, jax.tree.map(lambda x, t=t: x[t], noise))
        obs = out.next_obs
        taken = {"action": np.asarray(action)[0], "reward": np.asarray(out.reward)[0]}
        scenes.append(scene(state, obs, **taken))
        if (out.terminated | out.truncated)[0]:
            break
    return scenes
