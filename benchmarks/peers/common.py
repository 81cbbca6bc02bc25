"""What all timed programs share: the PPO configuration, a clock, and the answer in JSON.

Standard library only, because each program runs in the interpreter of another library.
"""

import argparse
import contextlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from typing import Any

STOCK: dict[str, Any] = {  # the defaults of PureJaxRL; the same in all programs
    "env_id": "CartPole-v1", "num_envs": 4, "num_steps": 128, "update_epochs": 4,
    "num_minibatches": 4, "learning_rate": 2.5e-4, "anneal_lr": True, "gamma": 0.99,
    "gae_lambda": 0.95, "clip_eps": 0.2, "clip_value": True, "ent_coef": 0.01, "vf_coef": 0.5,
    "max_grad_norm": 0.5, "hidden_sizes": (64, 64), "activation": "tanh",
    "normalize_obs": False, "normalize_reward": False,
}  # fmt: skip
ROLLOUT = STOCK["num_envs"] * STOCK["num_steps"]  # also that of `ppo_configuration`


def ppo_configuration(width: int) -> dict[str, Any]:
    """Returns the configuration of PPO for two hidden layers of `width` units; `STOCK` for 0."""
    if not width:
        return STOCK
    return STOCK | {
        "num_envs": 8, "num_steps": 64, "update_epochs": 10, "hidden_sizes": (width, width),
    }  # fmt: skip


class Clock:
    """Wall and CPU seconds (of all threads of the process) of a `with` block."""

    wall = cpu = 0.0

    def __enter__(self) -> "Clock":
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: Any) -> None:
        self.wall = time.perf_counter() - self._start[0]
        self.cpu = time.process_time() - self._start[1]


def options(about: str, **more: dict[str, Any]) -> argparse.Namespace:
    """Parses the options of every program, and `more` of one program, `name={keywords}`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--timesteps", type=int, default=976 * ROLLOUT, help="environment steps of one run"
    )
    parser.add_argument("--num-seeds", type=int, default=1, help="seeds side by side (1)")
    parser.add_argument("--runs", type=int, default=1, help="number of timed repetitions (1)")
    for name, keywords in more.items():
        parser.add_argument(f"--{name}", **keywords)
    return parser.parse_args()


def timed(run: Callable[[], Any], times: int) -> tuple[list[Clock], Any]:
    """Returns the clocks of `times` calls of `run` after a warm-up, and the last result.

    `run` must block until its result is ready.
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
    """Returns the backend, the kind and the number of JAX's devices."""
    import jax

    devices = jax.local_devices()
    return {
        "backend": jax.default_backend(),
        "device": devices[0].device_kind,
        "num_devices": len(devices),
    }


def answer(steps: int, clocks: list[Clock], compiling: Clock | None, **more: Any) -> None:
    """Prints the measurement; `steps` counts the environment steps of all seeds in one clock."""
    record = {
        "steps_per_second": [steps / clock.wall for clock in clocks],
        "steps_per_cpu_second": [steps / max(clock.cpu, 1e-9) for clock in clocks],
        "steps": steps,
        "compile_seconds": compiling and compiling.wall,
        "compile_cpu_seconds": compiling and compiling.cpu,
    }
    print(json.dumps(record | more), flush=True)


def compiled(program: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], Clock]:
    """Compiles a program ahead of time; calling the result blocks until the outputs are ready."""
    import jax

    with Clock() as clock:
        executable = jax.jit(program).lower(*arguments).compile()
    return (lambda *arguments: jax.block_until_ready(executable(*arguments))), clock


def keys(num_seeds: int) -> Any:
    """Returns one raw key, or `[num_seeds]` of them."""
    import jax

    key = jax.random.PRNGKey(30)
    return key if num_seeds == 1 else jax.random.split(key, num_seeds)


def over_seeds(program: Callable[..., Any], num_seeds: int) -> Callable[..., Any]:
    """Returns the program mapped over keys, or the program itself for a single seed."""
    import jax

    return program if num_seeds == 1 else jax.vmap(program)
