"""Timed programs of rljax, each run by throughput.py in a process of its own.

    python benchmarks/lib/measure.py ppo --num-envs 64 --num-steps 128 --num-seeds 8

stock    whole `rljax.train` calls of the configuration in peers/common.py
ppo      PPO's training loop, advanced in chunks as in `rljax.train`
random   the same loop with a random policy that learns nothing: an upper bound for any algorithm
gymnax   gymnax's own step, which computes a reset at every step, with random actions
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/, for `peers`
from peers import common

PACKAGES = ("jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    programs = {"stock": stock, "ppo": loop, "random": loop, "gymnax": gymnax}
    parser.add_argument("program", choices=tuple(programs), help="the timed program")
    parser.add_argument("--env-id", default=common.STOCK["env_id"], help="environment id")
    parser.add_argument("--num-envs", type=int, default=4, help="parallel environments (4)")
    parser.add_argument("--num-steps", type=int, default=128, help="rollout length (128)")
    parser.add_argument("--num-seeds", type=int, default=1, help="seeds side by side (1)")
    parser.add_argument("--runs", type=int, default=1, help="number of timed repetitions (1)")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="approximate length of a repetition; not stock"
    )
    parser.add_argument(
        "--timesteps", type=int, default=976 * common.ROLLOUT, help="environment steps of `stock`"
    )
    parser.add_argument(
        "--width", type=int, default=0, help="units of each hidden layer; for `stock`"
    )
    options = parser.parse_args()
    common.answer(**programs[options.program](options), **facts())


def facts() -> dict[str, Any]:
    """Returns the versions, the processor and the devices of this process."""
    return {
        "versions": common.versions(*PACKAGES), "processor": processor(), **common.jax_device()
    }  # fmt: skip


def stock(options: argparse.Namespace) -> dict[str, Any]:
    """Times whole calls of `rljax.train`, including planning, reports and checks."""
    import rljax

    fields = common.ppo_configuration(options.width) | {"total_timesteps": options.timesteps}
    fields.pop("env_id")

    def train():
        return rljax.train(
            "ppo",
            options.env_id,
            num_seeds=options.num_seeds,
            progress=False,
            eval_episodes=0,
            **fields,
        )

    with common.Clock() as first:
        result = train()
    compile_seconds = result.compile_seconds
    clocks = []
    for _ in range(1 + options.runs):  # the first of these only warms up
        with common.Clock() as clock:
            result = train()
        clocks.append(clock)
    first.wall = compile_seconds
    first.cpu = max(0.0, first.cpu - float(np.median([clock.cpu for clock in clocks])))
    return {
        "steps": options.num_seeds * int(result.steps[-1]),
        "clocks": clocks[1:],
        "compiling": first,
        "final_return": float(np.nanmean(result.returns[..., -1])),
    }


def loop(options: argparse.Namespace) -> dict[str, Any]:
    """Times the training loop in steady state, of PPO or of a random policy."""
    import jax

    shape = {"num_envs": options.num_envs, "num_steps": options.num_steps}
    agent, fields = ("ppo", common.STOCK) if options.program == "ppo" else (random_policy(), {})
    fields = {name: value for name, value in fields.items() if name != "env_id"} | shape
    plan, work, compiling = compiled_runs(agent, options.env_id, options.num_seeds, **fields)
    clocks, updates = in_chunks(lambda count: jax.block_until_ready(work.advance(count)), options)
    steps = updates * plan.num_runs * plan.steps_per_update
    return {"steps": steps, "clocks": clocks, "compiling": compiling}


def compiled_runs(agent: Any, env_id: str, num_seeds: int, **fields: Any) -> tuple[Any, Any, Any]:
    """Compiles and initializes runs as `rljax.train` does. Returns plan, runs and a clock."""
    from rljax.experiment.make_plan import make_plan
    from rljax.training import parallel, runs

    with common.Clock() as compiling:
        plan = make_plan(agent, env_id, num_seeds=num_seeds, total_timesteps=2**30, **fields)
        placement = parallel.place(plan.num_runs)
        work = runs.Runs(plan.make_learner(), plan.config, plan.run_inits(), placement)
    return plan, work, compiling


def in_chunks(advance: Any, options: argparse.Namespace) -> tuple[list[common.Clock], int]:
    """Times `advance(count)` repeatedly, with a count that takes about `options.seconds`."""
    count, start = 1, time.perf_counter()
    advance(1)
    elapsed = time.perf_counter() - start
    while elapsed < options.seconds / 4:
        count, start = 2 * count, time.perf_counter()
        advance(count)
        elapsed = time.perf_counter() - start
    count = max(1, round(count * options.seconds / elapsed))
    runs = options.runs if elapsed < 5 * options.seconds else 1  # one update may take minutes
    clocks, _ = common.timed(lambda: advance(count), runs)
    return clocks, count


def random_policy() -> tuple[type, Any]:
    """Returns the config class and the maker of an agent that acts uniformly and never learns."""
    import jax

    from rljax.config import RunConfig, config
    from rljax.types import Agent, sample_one

    @config
    class RandomConfig(RunConfig):
        pass

    def random(config, spec):
        def sample_noise(key, num_steps):
            return jax.random.randint(key, (num_steps, spec.num_envs), 0, spec.num_actions)

        return Agent(
            init=lambda key: (),
            act=lambda state, obs, noise: (noise, ()),
            greedy=lambda state, obs, key: sample_one(sample_noise, key),
            update=lambda state, trajectory, key: (state, {}),
            sample_noise=sample_noise,
        )

    return RandomConfig, random


def gymnax(options: argparse.Namespace) -> dict[str, Any]:
    """Times `num_envs` environments under gymnax's own `step`, in the loop of its examples."""
    import jax
    import jax.numpy as jnp

    from rljax.envs.gymnax import load_gymnax

    env, params = load_gymnax().make(options.env_id)
    width = options.num_envs * options.num_seeds

    def reset(key):
        return jax.vmap(env.reset, (0, None))(jax.random.split(key, width), params)[1]

    def advance(carry, count):
        def one_step(_, carry):
            state, key, total = carry
            key, act_key, step_key = jax.random.split(key, 3)
            action = jax.vmap(env.action_space(params).sample)(jax.random.split(act_key, width))
            step_keys = jax.random.split(step_key, width)
            _, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(
                step_keys, state, action, params
            )
            return state, key, total + reward.sum()

        return jax.lax.fori_loop(0, count * options.num_steps, one_step, carry)

    key = jax.random.key(0)
    with common.Clock() as compiling:
        carry = jax.jit(reset)(key), key, jnp.float32(0)
        program = jax.jit(advance).lower(carry, np.int32(1)).compile()
    clocks, count = in_chunks(
        lambda count: jax.block_until_ready(program(carry, np.int32(count))), options
    )
    steps = count * width * options.num_steps
    return {"steps": steps, "clocks": clocks, "compiling": compiling}


def processor() -> str:
    """Returns the model name of the CPU."""
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
