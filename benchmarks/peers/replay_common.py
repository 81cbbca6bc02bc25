"""What the timed programs of prioritized replay share: sizes, the timed loop, the answer in JSON.

Standard library only, because each program runs in the interpreter of another library.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import common

ADD, BATCH = 64, 256  # items added, and items sampled and reprioritized, in a cycle
EXPONENT, EPSILON = 0.6, 1e-6
OPERATIONS = ("cycle", "sample")


def options(about: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "operation", choices=OPERATIONS, help="cycle (add, sample, reprioritize) or sample alone"
    )
    parser.add_argument("--capacity", type=int, default=2**17, help="capacity of the buffer")
    parser.add_argument("--calls", type=int, default=3000, help="calls in one compiled loop (3000)")
    parser.add_argument("--runs", type=int, default=5, help="number of timed repetitions (5)")
    return parser.parse_args()


def item(zeros: Callable[[tuple[int, ...], str], Any]) -> dict[str, Any]:
    """Returns a transition of CartPole, made with `zeros(shape, dtype)`."""
    return {
        "obs": zeros((4,), "float32"), "action": zeros((), "int32"),
        "reward": zeros((), "float32"), "terminated": zeros((), "bool"),
        "truncated": zeros((), "bool"), "next_obs": zeros((4,), "float32"),
    }  # fmt: skip


def time_jax(
    options: argparse.Namespace, state: Any, add: Callable[..., Any], sample: Callable[..., Any],
    reprioritize: Callable[..., Any],
) -> list[common.Clock]:  # fmt: skip
    """Returns the clocks of `calls` calls inside one jitted scan over a full buffer.

    Args:
      add: `(state, items[ADD]) -> state`
      sample: `(state, key) -> (items[BATCH], handle)`
      reprioritize: `(state, handle, td_error[BATCH]) -> state`
    """
    import jax
    import jax.numpy as jnp

    def items_at(number):
        def fill(x):
            return jnp.broadcast_to(number, (ADD, *x.shape)).astype(x.dtype)

        return jax.tree.map(fill, item(jnp.zeros))

    def use(batch):  # every field, or the compiler would remove reading it
        return sum(x.sum().astype(jnp.float32) for x in jax.tree.leaves(batch))

    def one_fill(state, numbers):
        number, key, td_error = numbers
        state = add(state, items_at(number))
        _, handle = sample(state, key)
        return reprioritize(state, handle, td_error), None

    def one_cycle(carry, numbers):
        state, total = carry
        number, key, td_error = numbers
        state = add(state, items_at(number))
        batch, handle = sample(state, key)
        return (reprioritize(state, handle, td_error), total + use(batch)), None

    def one_sample(carry, numbers):
        state, total = carry
        return (state, total + use(sample(state, numbers[1])[0])), None

    def numbers(key, count):  # computed before the timed loop
        keys = jax.random.split(key, count)
        td_error = jnp.exp(jax.random.normal(key, (count, BATCH)))
        return jnp.arange(count, dtype=jnp.float32), keys, td_error

    def fill(state, key):
        count = options.capacity // ADD + 1
        return jax.lax.scan(one_fill, state, numbers(key, count))[0]

    def timed(state, numbers):
        body = one_cycle if options.operation == "cycle" else one_sample
        return jax.lax.scan(body, (state, jnp.float32(0)), numbers)[0]

    state = jax.jit(fill, donate_argnums=0)(state, jax.random.key(0))
    inputs = jax.jit(numbers, static_argnums=1)(jax.random.key(1), options.calls)
    program = jax.jit(timed, donate_argnums=0)  # without donation each run would copy the buffer

    def run():
        nonlocal state
        state, total = jax.block_until_ready(program(state, inputs))
        return total

    clocks, _ = common.timed(run, options.runs)
    return clocks


def answer(
    options: argparse.Namespace, clocks: list[common.Clock], backend: str = "cpu", **more: Any
) -> None:
    """Prints microseconds a call: CPU time on a CPU, which other processes disturb less."""
    seconds = [clock.cpu if backend == "cpu" else clock.wall for clock in clocks]
    record = {"microseconds": [1e6 * x / options.calls for x in seconds], "backend": backend}
    print(json.dumps(record | more), flush=True)
