"""Timed ways to step environments on the host, each run by host.py in a process of its own.

    python benchmarks/lib/measure_host.py buffer --env-id CartPole-v1 --num-envs 8

emulator    the vector environment alone, in a loop of Python, with random actions
ordered     one ordered `io_callback` for each step of the batch, in a compiled scan
unordered   an unordered `io_callback`
pure        a `pure_callback`
buffer      a `buffer_callback`, as rljax has it on a CPU
loop        a loop of Python around a compiled policy
xla         ALE's own custom calls in a compiled scan; they cannot reset in the same step
envpool     the same environment of EnvPool, in a loop of Python
envpool_xla its custom calls in a compiled scan
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/
from lib.measure import facts
from peers import common

GAMES = {"Breakout": "breakout"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=tuple(WAYS), help="how environments are stepped")
    parser.add_argument("--env-id", default="CartPole-v1", help="CartPole-v1 or Breakout")
    parser.add_argument("--num-envs", type=int, default=8, help="parallel environments (8)")
    parser.add_argument("--runs", type=int, default=3, help="number of timed repetitions (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a repetition")
    options = parser.parse_args()
    run = WAYS[options.way](options)
    num_steps, start = 20, time.perf_counter()
    run(random_actions(options, num_steps))  # compiles
    while (elapsed := time.perf_counter() - start) < options.seconds / 4:
        num_steps, start = 2 * num_steps, time.perf_counter()
        run(random_actions(options, num_steps))
    num_steps = max(1, round(num_steps * options.seconds / elapsed))
    actions = random_actions(options, num_steps)
    clocks, _ = common.timed(lambda: run(actions), options.runs)
    common.answer(num_steps * options.num_envs, clocks, None, **facts())


def random_actions(options: argparse.Namespace, num_steps: int) -> np.ndarray:
    num_actions = 4 if options.env_id in GAMES else 2
    return np.random.default_rng(0).integers(0, num_actions, (num_steps, options.num_envs))


def make(options: argparse.Namespace, mode: str = "SameStep") -> Any:
    if options.env_id in GAMES:
        from ale_py.vector_env import AtariVectorEnv

        env = AtariVectorEnv(GAMES[options.env_id], options.num_envs, autoreset_mode=mode)
    else:
        import gymnasium

        env = gymnasium.make_vec(
            options.env_id, options.num_envs, vectorization_mode="sync", disable_env_checker=True,
            vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode(mode)},
        )  # fmt: skip
    env.reset(seed=0)
    return env


def emulator(options: argparse.Namespace) -> Any:
    env = make(options)

    def run(actions):
        for action in actions:
            env.step(action)

    return run


def callback(options: argparse.Namespace) -> Any:
    import jax
    import jax.numpy as jnp
    from jax.experimental import io_callback
    from jax.experimental.buffer_callback import buffer_callback

    env = make(options)
    space = env.observation_space
    dtype = jnp.uint8 if space.dtype == np.uint8 else jnp.float32
    shapes = jax.eval_shape(
        lambda: (jnp.int32(0), jnp.zeros(space.shape, dtype), jnp.zeros(options.num_envs))
    )

    def step(call):
        time, action = call[0], np.asarray(call[1:], np.int64)
        obs, reward, *_ = env.step(action)
        return np.int32(time + 1), np.asarray(obs, dtype), np.asarray(reward, np.float32)

    def write(context, out, call):
        del context
        for buffer, value in zip(out, step(np.asarray(call)), strict=True):
            np.asarray(buffer)[...] = value

    @jax.jit
    def scan(actions):
        def body(time, action):
            call = jnp.concatenate([time[None], action])
            if options.way == "buffer":
                time, obs, reward = buffer_callback(write, shapes)(call)
            elif options.way == "pure":
                time, obs, reward = jax.pure_callback(step, shapes, call)
            else:
                time, obs, reward = io_callback(
                    step, shapes, call, ordered=options.way == "ordered"
                )
            return time, (obs[0].sum(), reward.sum())

        return jax.lax.scan(body, jnp.int32(0), actions.astype(jnp.int32))

    return lambda actions: jax.block_until_ready(scan(actions))


def loop(options: argparse.Namespace) -> Any:
    import jax
    import jax.numpy as jnp

    env = make(options)
    num_actions = 4 if options.env_id in GAMES else 2
    obs, key = env.reset(seed=0)[0], jax.random.key(0)

    @jax.jit
    def act(obs, key):
        key, act_key = jax.random.split(key)
        logits = jnp.zeros((options.num_envs, num_actions)) + 0.0 * obs.ravel()[0]
        return jax.random.categorical(act_key, logits), key

    def run(actions):
        nonlocal obs, key
        for _ in actions:
            action, key = act(obs, key)
            obs, *_ = env.step(np.asarray(action, np.int64))

    return run


def scanned(handle: Any, step: Any) -> Any:
    """Returns a function of actions `[T, B]` that takes the steps in one compiled program."""
    import jax

    @jax.jit
    def scan(handle, actions):
        def body(handle, action):
            handle, (obs, reward, *_) = step(handle, action)
            return handle, (obs[0].sum(), reward.sum())

        return jax.lax.scan(body, handle, actions.astype(np.int32))

    return lambda actions: jax.block_until_ready(scan(handle, actions))


def xla(options: argparse.Namespace) -> Any:
    handle, _, step = make(options, "NextStep").xla()

    return scanned(handle, step)


def envpool(options: argparse.Namespace) -> Any:
    import envpool

    name = f"{options.env_id}-v5" if options.env_id in GAMES else options.env_id
    env = envpool.make_gymnasium(name, num_envs=options.num_envs, seed=0)
    env.reset()
    dtype = env.action_space.dtype

    def run(actions):
        for action in actions:
            env.step(action.astype(dtype))

    if options.way == "envpool":
        return run
    handle, _, _, step = env.xla()

    return scanned(handle, step)


WAYS = {
    "emulator": emulator, "ordered": callback, "unordered": callback, "pure": callback,
    "buffer": callback, "loop": loop, "xla": xla, "envpool": envpool, "envpool_xla": envpool,
}  # fmt: skip


if __name__ == "__main__":
    main()
