"""How the speed grows with devices: workers of one run, and seeds spread out.

    python benchmarks/scaling.py                        1, 2, 4, 8 devices; a CPU plays them
    python benchmarks/scaling.py --agent a3c --devices 1,2 --output scaling.md

The work of a device is the same however many there are: `--num-envs` environments each, or one
seed each. On a GPU or TPU the devices are real and the column `of ideal` is the scaling. Virtual
CPU devices share the cores: beyond as many devices as cores it shows what sharing costs, no speed.
"""

import argparse
import json
import os
import sys
import time

import harness
from harness import Failed, Table, rate


def main() -> int:
    options = parse()
    if options.measure:
        print(json.dumps(measured(options)))
        return 0
    table = Table(
        "Scaling", f"{options.agent} on {options.env}, {options.num_envs} environments x "
        f"{options.num_steps} steps an update on each device; environment steps per second.",
        "mode", ">devices", ">steps/s", ">of ideal", ">compile s",
    )  # fmt: skip
    line, failed = "", False
    for mode in ("workers", "seeds"):
        alone = None
        for devices in options.devices:
            try:
                told = harness.ask(
                    (sys.executable, "-W", "ignore", __file__), options.timeout, measure=mode,
                    devices=devices, agent=options.agent, env=options.env, seconds=options.seconds,
                    num_envs=options.num_envs, num_steps=options.num_steps,
                )  # fmt: skip
            except Failed as failure:
                table.add(mode, str(devices), "-", "-", str(failure))
                failed = True
                continue
            line = line or harness.machine(told)
            alone = alone or told["rate"] / devices
            ideal = f"{told['rate'] / (alone * devices):.2f}"
            table.add(mode, str(devices), rate(told["rate"]), ideal, f"{told['compile']:.1f}")
    print(f"\n{line}\n\n{table.text()}")
    harness.write(options.output, "Scaling", line, [table])
    return int(failed)


def measured(options: argparse.Namespace) -> dict:
    """One figure: in a process of its own, because devices are counted when JAX starts."""
    (devices,) = options.devices
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    from measure import facts

    from rljax.experiment.plan import make_plan
    from rljax.training import parallel, runs

    if len(jax.devices()) < devices:
        sys.exit(f"JAX sees {len(jax.devices())} devices here")
    workers = devices if options.measure == "workers" else 1
    plan = make_plan(
        options.agent, options.env, num_seeds=1 if workers == devices else devices,
        devices=workers, num_envs=options.num_envs * workers, num_steps=options.num_steps,
        total_timesteps=10**9,
    )  # fmt: skip
    spread = parallel.spread(plan.num_runs, devices, workers=workers)
    began = time.perf_counter()
    work = runs.Runs(plan.make_learner(), plan.config, plan.entries(), spread)
    work.advance(2)
    compile_seconds = time.perf_counter() - began
    updates, spent = 2, 0.0
    while spent < options.seconds:
        updates *= 2
        began = time.perf_counter()
        work.advance(updates)
        spent = time.perf_counter() - began
    steps = updates * plan.steps_per_update * plan.num_runs
    return {"rate": steps / spent, "compile": compile_seconds} | facts()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default="dppo")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--devices", default="1,2,4,8", type=numbers, help="how many, in turn")
    parser.add_argument("--num-envs", type=int, default=64, help="on each device")
    parser.add_argument("--num-steps", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the last, counted chunk")
    parser.add_argument("--timeout", type=float, default=600.0, help="of each figure")
    parser.add_argument("--output", help="a markdown file")
    parser.add_argument("--measure", choices=("workers", "seeds"), help=argparse.SUPPRESS)
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.exit(main())
