"""What all timed programs share: the configuration, a clock, and one line of JSON as the answer.

The standard library alone, because each program runs in the interpreter of another library.
"""

import argparse
import contextlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from typing import Any

STOCK: dict[str, Any] = {  # PPO as PureJaxRL ships it; the same in all programs
    "env_id": "CartPole-v1", "num_envs": 4, "num_steps": 128, "update_epochs": 4,
    "num_minibatches": 4, "learning_rate": 2.5e-4, "anneal_lr": True, "gamma": 0.99,
    "gae_lambda": 0.95, "clip_eps": 0.2, "clip_value": True, "ent_coef": 0.01, "vf_coef": 0.5,
    "max_grad_norm": 0.5, "hidden_sizes": (64, 64), "activation": "tanh",
}  # fmt: skip
ROLLOUT = STOCK["num_envs"] * STOCK["num_steps"]


class Clock:
    """Wall and CPU seconds (of all threads of the process) of a `with` block."""

    wall = cpu = 0.0

    def __enter__(self) -> "Clock":
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: Any) -> None:
        self.wall = time.perf_counter() - self._began[0]
        self.cpu = time.process_time() - self._began[1]


def options(about: str, **more: dict[str, Any]) -> argparse.Namespace:
    """The options that every program has, and `more` of its own, `name={keywords}`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--timesteps", type=int, default=976 * ROLLOUT, help="of one run")
    parser.add_argument("--num-seeds", type=int, default=1, help="runs side by side")
    parser.add_argument("--runs", type=int, default=1, help="timed, one after another")
    for name, keywords in more.items():
        parser.add_argument(f"--{name}", **keywords)
    return parser.parse_args()


def timed(run: Callable[[], Any], times: int) -> tuple[list[Clock], Any]:
    """Clocks of `times` calls of `run` after one to warm up, and the last result.

    `run` must wait until its result is there.
    """
    result = run()
    clocks = []
    for _ in range(times):
        with Clock() as clock:
            result = run()
        clocks.append(clock)
    return clocks, result


def versions(*packages: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def jax_device() -> dict[str, Any]:
    """What JAX computes on, in its own words."""
    import jax

    devices = jax.local_devices()
    return {
        "backend": jax.default_backend(),
        "device": devices[0].device_kind,
        "num_devices": len(devices),
    }


def answer(steps: int, clocks: list[Clock], compiling: Clock | None, **more: Any) -> None:
    """Prints the measurement: `steps` environment steps of all runs together in each clock."""
    record = {
        "steps_per_second": [steps / clock.wall for clock in clocks],
        "steps_per_cpu_second": [steps / max(clock.cpu, 1e-9) for clock in clocks],
        "steps": steps,
        "compile_seconds": compiling and compiling.wall,
        "compile_cpu_seconds": compiling and compiling.cpu,
    }
    print(json.dumps(record | more), flush=True)


def compiled(program: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], Clock]:
    """A jitted program, compiled ahead of time; calling it waits for the result."""
    import jax

    with Clock() as clock:
        executable = jax.jit(program).lower(*arguments).compile()
    return (lambda *arguments: jax.block_until_ready(executable(*arguments))), clock


def keys(seeds: int) -> Any:
    """A raw key of JAX, or `seeds` of them."""
    import jax

    key = jax.random.PRNGKey(30)
    return key if seeds == 1 else jax.random.split(key, seeds)


def over_seeds(program: Callable[..., Any], seeds: int) -> Callable[..., Any]:
    import jax

    return program if seeds == 1 else jax.vmap(program)
