"""Speed by number of devices: workers of one run, and independent seeds.

    python benchmarks/scaling.py                        1, 2, 4, 8 devices, virtual on a CPU
    python benchmarks/scaling.py --agent a3c --devices 1,2 --output scaling.md

The work per device is constant: `--num-envs` environments each, or one seed each. On a GPU or TPU
the devices are real and the column `of ideal` is the scaling efficiency. Virtual CPU devices share
the cores: with more devices than cores the column shows the cost of sharing. `average` is the time
of one mean over the workers of as many numbers as the default PPO has parameters.
"""

import argparse
import json
import os
import sys
import time

from lib import harness
from lib.harness import Failed, Table, rate

PARAMETERS = 9_155  # of PPO's default networks for CartPole


def main() -> int:
    options = parse()
    if options.measure:
        print(json.dumps(measured(options)))
        return 0
    table = Table(
        "Scaling", f"{options.agent} on {options.env}, {options.num_envs} environments x "
        f"{options.num_steps} steps an update on each device; environment steps per second.",
        "mode", ">devices", ">steps/s", ">of ideal", ">average us", ">compile s",
    )  # fmt: skip
    line, failed = "", False
    for mode in ("workers", "seeds"):
        alone = None
        for devices in options.devices:
            try:
                answer = harness.ask(
                    (sys.executable, "-W", "ignore", __file__), options.timeout, measure=mode,
                    devices=devices, agent=options.agent, env=options.env, seconds=options.seconds,
                    num_envs=options.num_envs, num_steps=options.num_steps,
                )  # fmt: skip
            except Failed as failure:
                table.add(mode, str(devices), "-", "-", "-", str(failure))
                failed = True
                continue
            line = line or harness.machine(answer)
            alone = alone or answer["rate"] / devices
            ideal = f"{answer['rate'] / (alone * devices):.2f}"
            average = f"{answer['average']:.1f}" if mode == "workers" else "-"
            compile_seconds = f"{answer['compile_seconds']:.1f}"
            table.add(mode, str(devices), rate(answer["rate"]), ideal, average, compile_seconds)
    print(f"\n{line}\n\n{table.text()}")
    harness.write(options.output, "Scaling", line, [table])
    return int(failed)


def measured(options: argparse.Namespace) -> dict:
    """Measures one rate, in a process of its own because JAX counts its devices once."""
    (devices,) = options.devices
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    from lib.measure import facts

    from rljax.experiment.make_plan import make_plan
    from rljax.training import parallel, runs

    if len(jax.devices()) < devices:
        sys.exit(f"JAX sees {len(jax.devices())} devices here")
    workers = devices if options.measure == "workers" else 1
    plan = make_plan(
        options.agent, options.env, num_seeds=1 if workers == devices else devices,
        devices=workers, num_envs=options.num_envs * workers, num_steps=options.num_steps,
        total_timesteps=10**9,
    )  # fmt: skip
    placement = parallel.place(plan.num_runs, devices, workers=workers)
    start = time.perf_counter()
    work = runs.Runs(plan.make_learner(), plan.config, plan.worker_inits(), placement)
    work.advance(2)
    compile_seconds = time.perf_counter() - start
    updates, elapsed = 2, 0.0
    while elapsed < options.seconds:
        updates *= 2
        start = time.perf_counter()
        work.advance(updates)
        elapsed = time.perf_counter() - start
    steps = updates * plan.steps_per_update * plan.num_runs
    average = microseconds_of_average(devices) if workers == devices else None
    answer = {"rate": steps / elapsed, "average": average, "compile_seconds": compile_seconds}
    return answer | facts()


def microseconds_of_average(devices: int, calls: int = 2_000) -> float:
    """Returns the time of one `lax.pmean` of `PARAMETERS` numbers, one after another in a loop."""
    import jax
    import jax.numpy as jnp

    def loop(x):
        return jax.lax.fori_loop(0, calls, lambda _, x: 0.5 * jax.lax.pmean(x, "workers"), x)

    program = jax.pmap(loop, axis_name="workers")
    numbers = jnp.ones((devices, PARAMETERS))
    times = []
    for _ in range(4):  # the first of these compiles
        start = time.perf_counter()
        jax.block_until_ready(program(numbers))
        times.append(time.perf_counter() - start)
    return 1e6 * min(times[1:]) / calls


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default="dppo", help="name of the agent (dppo)")
    parser.add_argument("--env", default="CartPole-v1", help="environment id (CartPole-v1)")
    parser.add_argument(
        "--devices", default="1,2,4,8", type=numbers, help="numbers of devices, in turn (1,2,4,8)"
    )
    parser.add_argument("--num-envs", type=int, default=64, help="environments per device (64)")
    parser.add_argument("--num-steps", type=int, default=32, help="rollout length (32)")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="minimum length of the timed chunk (5)"
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds per process (600)")
    parser.add_argument("--output", metavar="FILE.md", help="markdown file for the table")
    parser.add_argument("--measure", choices=("workers", "seeds"), help=argparse.SUPPRESS)
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())
