"""The timed program of rljax's prioritized replay, run in a process of its own by replay.py.

python benchmarks/measure_replay.py cycle --capacity 131072
"""

import sys
from pathlib import Path

import jax.numpy as jnp

from rljax import replay
from rljax.types import Transition

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
import common
import measure
import replay_common


def main() -> None:
    options = replay_common.options("rljax prioritized replay")
    buffer = replay.prioritized(
        options.capacity, replay_common.BATCH, replay_common.EXPONENT, replay_common.EPSILON
    )

    def add(state, items):
        one_step = {name: x[None] for name, x in items.items()}
        return buffer.add(state, Transition(**one_step))

    def sample(state, key):
        drawn = buffer.sample(state, key)
        return (drawn.transitions, drawn.probability, drawn.min_probability), drawn.indices

    state = buffer.init(Transition(**replay_common.item(jnp.zeros)))
    clocks = replay_common.time_jax(options, state, add, sample, buffer.reprioritize)
    facts = {"versions": common.versions("jax", "jaxlib"), "processor": measure.processor()}
    replay_common.answer(options, clocks, **facts, **common.jax_device())


if __name__ == "__main__":
    main()
