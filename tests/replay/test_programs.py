"""Replay inside compiled programs: transformations, no copies of the ring, and resumed runs."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import bits
from replay_helpers import KINDS, equations, item, items, kinds, sampler

from rljax.experiment import checkpoint
from rljax.training import batching
from rljax.types import Shared


@pytest.mark.parametrize("kind", KINDS)
def test_jit_vmap_and_scan(kind):
    """A scan under vmap equals a loop of single calls, up to the last bit of floats."""
    buffer = kinds(16, 4)[kind]

    def step(state, inputs):
        number, key = inputs
        state = buffer.add(state, items(number, 2, 3))
        sample = sampler(buffer)(state, key)
        return buffer.reprioritize(state, sample.indices, sample.transitions.reward), sample

    def run(key):
        return jax.lax.scan(step, buffer.init(item(0)), (jnp.arange(6), jax.random.split(key, 6)))

    keys = jax.random.split(jax.random.key(0), 3)
    states, samples = jax.jit(jax.vmap(run))(keys)
    call = jax.jit(step)
    for i in range(3):
        state = buffer.init(item(0))
        for t, key in enumerate(jax.random.split(keys[i], 6)):
            state, sample = call(state, (jnp.int32(t), key))
        got = jax.tree.map(lambda x, i=i: x[i], (states, jax.tree.map(lambda x: x[:, -1], samples)))
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves((state, sample)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6 if x.dtype == jnp.float32 else 0)


def three_runs(buffer, num_steps=3):
    """Returns initial states, and `over_runs` of add, sample and reprioritize."""

    def advance(run):
        def step(carry, _):
            state, key, total = carry
            key, sample_key = jax.random.split(key)
            state = buffer.add(state, items(0, 2, 3))
            sample = sampler(buffer)(state, sample_key)
            state = buffer.reprioritize(state, sample.indices, sample.transitions.reward)
            total += (sample.probability / sample.min_probability).sum()  # so that both are used
            return (state, key, total), None

        return jax.lax.scan(step, run, None, num_steps)[0]

    def init(key):
        return buffer.init(item(0)), key, jnp.float32(0)

    return jax.vmap(init)(jax.random.split(jax.random.key(0), 3)), batching.over_runs(advance, 3)


def is_shared(x):
    return isinstance(x, Shared)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resumed", [False, True])
def test_the_ring_is_not_copied_in_a_program_of_many_runs(kind, resumed):
    """No `cond`, and no select of the size of the ring, from a new or a resumed state."""
    capacity = 4096
    state, program = three_runs(kinds(capacity, 4)[kind])
    if resumed:
        state = jax.jit(program)(state)
    shared = [x for x in jax.tree.leaves(state, is_leaf=is_shared) if is_shared(x)]
    assert len(shared) >= 2 and all(x.value.shape == (3,) for x in shared)
    found = [
        (equation.primitive.name, max((np.size(x.aval) for x in equation.outvars), default=0))
        for equation in equations(jax.make_jaxpr(program)(state).jaxpr)
    ]
    assert any("scatter" in name for name, _ in found) and ("scan", 0) not in found
    sizes = [size for name, size in found if name in ("cond", "select_n", "copy")]
    assert max(sizes) < capacity and "cond" not in {name for name, _ in found}


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_the_compiled_loop_copies_neither_ring_nor_tree(kind):
    """In the program that XLA makes, every array that is copied in the loop is small."""
    capacity = 2**15
    state, program = three_runs(kinds(capacity, 4)[kind])
    text = jax.jit(program, donate_argnums=0).lower(state).compile().as_text()
    loops = text[: text.index("\nENTRY ")]  # the computations that ENTRY calls
    assert re.search(r" = \S+ scatter\(", loops) and " while(" in text
    copied = re.findall(r" = \w+\[([\d,]*)\]\S* copy\(", loops)
    assert max(math.prod(map(int, filter(None, dims.split(",")))) for dims in copied) < capacity / 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumed_from_a_checkpoint_has_the_same_bits(kind, tmp_path):
    state, program = three_runs(kinds(16, 4)[kind])
    advance = jax.jit(program)
    half = advance(state)
    restored, _ = checkpoint.load(checkpoint.save(tmp_path, half, {}, step=3), half)
    assert bits(advance(restored)) == bits(advance(half))
