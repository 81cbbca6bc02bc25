"""Memory of arrays and programs, against numpy and sizes counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.ops.memory import device_bytes, program_bytes, readable, tree_bytes


def test_the_bytes_of_a_tree_are_those_of_numpy():
    tree = {"a": np.zeros((3, 5), np.float32), "b": (np.zeros(7, bool), np.zeros((), np.int64))}
    total = sum(x.nbytes for x in jax.tree.leaves(tree))
    assert tree_bytes(tree) == total == 75
    assert tree_bytes(jax.eval_shape(lambda: jnp.zeros((2**20, 2**20)))) == 2**42
    assert tree_bytes(()) == 0


@pytest.mark.parametrize(("donated", "copies"), [((), 2), ((0,), 1)])
def test_a_donated_argument_is_counted_once(donated, copies):
    x = jnp.zeros((1000, 1000), jnp.float32)
    compiled = jax.jit(lambda x: x + 1, donate_argnums=donated).lower(x).compile()
    assert program_bytes(compiled) == pytest.approx(copies * x.nbytes, abs=1000)


def test_intermediate_values_are_counted():
    def program(key):  # sorting needs all numbers at once
        return jnp.sort(jax.random.uniform(key, (10**6,)))[:3].sum()

    compiled = jax.jit(program).lower(jax.random.key(0)).compile()
    assert program_bytes(compiled) >= 4 * 10**6


def test_the_machine_has_memory():
    assert device_bytes() > 2**28


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "0.977 KiB"), (1536, "1.5 KiB"),
     (8.73 * 2**20, "8.73 MiB"), (2**30, "1 GiB"), (7 * 2**40, "7 TiB"), (2**60, "1,048,576 TiB")],
)  # fmt: skip
def test_a_readable_number_of_bytes(count, text):
    assert readable(count) == text
