"""The timed program of rljax's prioritized replay, run by replay.py in a process of its own.

python benchmarks/lib/measure_replay.py cycle --capacity 131072
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "peers"))
import common
import measure
import replay_common

from rljax import replay
from rljax.types import Transition, sample_one


def main() -> None:
    options = replay_common.options("rljax prioritized replay")
    clocks = replay_common.time_jax(options, *functions(options.capacity))
    facts = {"versions": common.versions("jax", "jaxlib"), "processor": measure.processor()}
    replay_common.answer(options, clocks, **facts, **common.jax_device())


def functions(capacity: int) -> tuple[Any, Callable, Callable, Callable]:
    """Returns an empty buffer, and `add`, `sample` and `reprioritize` of `time_jax`."""
    buffer = replay.prioritized(
        capacity, replay_common.BATCH, replay_common.EXPONENT, replay_common.EPSILON
    )

    def add(state, items):
        one_step = {name: x[None] for name, x in items.items()}
        return buffer.add(state, Transition(**one_step))

    def sample(state, key):
        sample = buffer.sample(state, sample_one(buffer.sample_noise, key))
        return (sample.transitions, sample.probability, sample.min_probability), sample.indices

    state = buffer.init(Transition(**replay_common.item(jnp.zeros)))
    return state, add, sample, buffer.reprioritize


if __name__ == "__main__":
    main()
