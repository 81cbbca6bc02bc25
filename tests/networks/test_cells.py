"""Memory cells: the GRU and the LSTM against flax's, and the state-space layer against numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.test_util import check_grads

from rljax.networks import GRU, LSTM, MEMORIES, S5
from rljax.networks.cells import hippo_frequencies

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B, F, N = 6, 2, 5, 4  # steps, environments, features, units
CELLS = {name: cell for name, cell in MEMORIES.items() if cell is not None}


class Layer(nn.Module):
    """A cell as a module: one step `[B, *]`, or a rollout with `start`."""

    cell: nn.Module

    def __call__(self, memory, features, start=None):
        inputs = self.cell.inputs(features)
        if start is None:
            memory = self.cell.step(memory, inputs)
        else:
            memory = self.cell.unroll(inputs, memory, start)
        return memory, self.cell.output(memory, inputs)


def setup(cell, dtype=jnp.float32):
    """Returns `apply` of a layer, random parameters, and a rollout `(stored, features, start)`."""
    layer, rng = Layer(cell(N)), np.random.default_rng(0)
    stored = jnp.asarray(rng.normal(size=(T, B, cell(N).memory_size)), dtype)
    features = jnp.asarray(rng.normal(size=(T, B, F)), dtype)
    start = jnp.zeros((T, B), bool).at[0].set(True).at[2, 0].set(True).at[4:, 1].set(True)
    params = layer.init(jax.random.key(0), stored[0], features[0])
    params = jax.tree.map(lambda x: jnp.asarray(x + 0.1 * rng.normal(size=x.shape), dtype), params)
    return jax.jit(layer.apply), params, (stored, features, start)


def test_the_gru_equals_that_of_flax():
    apply, params, (stored, features, _) = setup(GRU)
    ours, theirs = params["params"]["cell"], {}
    for i, gate in enumerate("rzn"):
        part = slice(i * N, (i + 1) * N)
        theirs[f"i{gate}"] = {k: v[..., part] for k, v in ours["of_input"].items()}
        theirs[f"h{gate}"] = {"kernel": ours["of_memory"][:, part]}
    theirs["hn"]["bias"] = ours["bias"]
    expected, _ = nn.GRUCell(N).apply({"params": theirs}, stored[0], features[0])
    memory, output = apply(params, stored[0], features[0])
    np.testing.assert_allclose(memory, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(output, memory)


@pytest.mark.parametrize("flax_cell", [nn.LSTMCell, nn.OptimizedLSTMCell])
def test_the_lstm_equals_that_of_flax(flax_cell):
    apply, params, (stored, features, _) = setup(LSTM)
    ours, theirs = params["params"]["cell"], {}
    for i, gate in enumerate("ifgo"):
        part = slice(i * N, (i + 1) * N)
        theirs[f"i{gate}"] = {"kernel": ours["of_input"]["kernel"][:, part]}
        theirs[f"h{gate}"] = {
            "kernel": ours["of_memory"][:, part], "bias": ours["of_input"]["bias"][part],
        }  # fmt: skip
    hidden, cell_state = jnp.split(stored[0], 2, axis=-1)
    (cell_state, hidden), _ = flax_cell(N).apply(
        {"params": theirs}, (cell_state, hidden), features[0]
    )
    memory, output = apply(params, stored[0], features[0])
    expected = jnp.concatenate([hidden, cell_state], axis=-1)
    np.testing.assert_allclose(memory, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output, hidden, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cell", "gates"), [(GRU, 3), (LSTM, 4)])
def test_the_recurrent_kernel_of_each_gate_is_orthogonal(cell, gates):
    layer = Layer(cell(N))
    params = layer.init(jax.random.key(0), jnp.zeros((1, cell(N).memory_size)), jnp.zeros((1, F)))
    params = params["params"]["cell"]
    for kernel in jnp.split(params["of_memory"], gates, axis=-1):
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(N), atol=1e-5)
    expected = np.repeat([0, 1, 0, 0], N) if cell is LSTM else np.zeros(3 * N)
    np.testing.assert_array_equal(params["of_input"]["bias"], expected)


def test_s5_is_the_exact_solution_of_its_linear_system():
    """x' = A x + B u with u constant during a step; the matrix exponential is that of scipy."""
    apply, params, (stored, features, start) = setup(S5)
    memory, output = apply(params, stored, features, start)
    p = jax.tree.map(np.float64, params["params"]["cell"])
    stored, features, start = map(np.asarray, (stored, features, start))
    u = features @ p["of_features"]["kernel"] + p["of_features"]["bias"]
    u = (u - u.mean(-1, keepdims=True)) / np.sqrt(u.var(-1, keepdims=True) + 1e-6)
    u = u * p["norm"]["scale"] + p["norm"]["bias"]
    matrix_a = np.diag(-np.exp(p["log_decay"]) + 1j * p["frequency"])
    kernel_b, kernel_c = p["b"]["kernel"], p["c"]["kernel"]
    matrix_b = (kernel_b[:, :N] + 1j * kernel_b[:, N:]).T
    matrix_c = (kernel_c[:N] - 1j * kernel_c[N:]).T / 2
    step = np.exp(p["log_step"])[:, None]  # each state has a step size of its own
    block = np.block([[step * matrix_a, step * matrix_b], [np.zeros((N, 2 * N))]])
    exponential = scipy.linalg.expm(block)
    next_a, next_b = exponential[:N, :N], exponential[:N, N:]
    for b in range(B):
        for t in range(T):
            if start[t, b]:
                x = stored[t, b, :N] + 1j * stored[t, b, N:]
            x = next_a @ x + next_b @ u[t, b]
            np.testing.assert_allclose(memory[t, b], np.concatenate([x.real, x.imag]), atol=1e-5)
            y = 2 * (matrix_c @ x).real + p["d"] * u[t, b]
            y = np.asarray(jax.nn.gelu(y))
            gate = 1 / (1 + np.exp(-(y @ p["gate"]["kernel"] + p["gate"]["bias"])))
            np.testing.assert_allclose(output[t, b], u[t, b] + y * gate, rtol=1e-4, atol=1e-5)


def test_hippo_frequencies_are_those_of_the_normal_part_of_hippo():
    """The HiPPO-LegS matrix plus the rank-one term of Gu et al. 2022 (section 3)."""
    size = 2 * N
    n = np.arange(size)
    legs = -np.sqrt(np.outer(2 * n + 1, 2 * n + 1)) * (n[:, None] > n) - np.diag(n + 1)
    root = np.sqrt(n + 0.5)
    eigenvalues = np.linalg.eigvals(legs + np.outer(root, root))
    np.testing.assert_allclose(eigenvalues.real, -0.5, atol=1e-9)
    np.testing.assert_allclose(
        hippo_frequencies(N), np.sort(eigenvalues.imag)[N:], rtol=1e-5, atol=1e-5
    )


def test_s5_forgets_at_any_parameters():
    """|a| is below 1, so that memories stay bounded."""
    apply, params, _ = setup(S5)
    wild = jax.tree.map(lambda x: 3 * jnp.sign(x) + x, params)
    zero = jnp.zeros((B, F))
    memory = jnp.ones((B, 2 * N))
    after, _ = apply(wild, memory, zero)
    still, _ = apply(wild, 0 * memory, zero)
    size = np.hypot(*jnp.split(after - still, 2, axis=-1))
    assert (size < np.sqrt(2)).all()


@pytest.mark.parametrize("name", CELLS)
def test_unrolling_equals_single_steps_from_each_start(name):
    apply, params, (stored, features, start) = setup(CELLS[name])
    memories, outputs = apply(params, stored, features, start)
    memory = stored[0]
    for t in range(T):
        memory = jnp.where(start[t][:, None], stored[t], memory)
        memory, output = apply(params, memory, features[t])
        np.testing.assert_allclose(memories[t], memory, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(outputs[t], output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_nothing_before_a_start_matters_after_it(name):
    apply, params, (stored, features, _) = setup(CELLS[name])
    start = jnp.zeros((T, B), bool).at[0].set(True).at[3].set(True)
    memory, output = apply(params, stored, features, start)
    changed = stored.at[:3].add(3.0), features.at[:3].multiply(-2.0)
    other_memory, other_output = apply(params, *changed, start)
    np.testing.assert_array_equal(memory[3:], other_memory[3:])
    np.testing.assert_array_equal(output[3:], other_output[3:])
    assert (np.abs(memory[2] - other_memory[2]) > 1e-3).any(axis=-1).all()
    without = apply(params, stored, features, start.at[0].set(False))[0]
    np.testing.assert_array_equal(memory, without)  # the first step always starts


@pytest.mark.parametrize("name", CELLS)
def test_gradients_equal_finite_differences(name):
    """Through time, by the parameters, the features and the stored memories, in float64."""
    with jax.enable_x64(True):
        apply, params, (stored, features, start) = setup(CELLS[name], dtype=jnp.float64)

        @jax.jit
        def loss(*arguments):
            return jnp.square(apply(*arguments, start)[1]).sum()

        arguments = params, stored, features
        check_grads(loss, arguments, order=1, modes=("rev",), rtol=1e-5)
        grads = jax.tree.leaves(jax.grad(loss, argnums=(0, 2))(*arguments))
        assert all(np.abs(x).max() > 1e-4 for x in grads)


@pytest.mark.parametrize("name", CELLS)
def test_many_runs_at_once_equal_separate_runs(name):
    """Gradients under `vmap` over parameters and data, as in a run of many seeds."""
    apply, params, rollout = setup(CELLS[name])

    def grads(scale):
        stored, features, start = rollout
        scaled = jax.tree.map(lambda x: scale * x, params)

        def loss(params):
            return apply(params, stored, scale * features, start)[1].sum()

        return jax.grad(loss)(scaled)

    scales = jnp.array([0.5, 1.0, 2.0])
    together, separate = jax.jit(jax.vmap(grads))(scales), jax.jit(grads)
    for i in range(3):
        alone = jax.tree.leaves(separate(scales[i]))
        for x, y in zip(jax.tree.leaves(together), alone, strict=True):
            np.testing.assert_allclose(x[i], y, rtol=1e-4, atol=1e-4)
