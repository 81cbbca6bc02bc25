"""Gradients in parts equal those of the whole minibatch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.networks.layers import MLP
from rljax.ops import gradients
from rljax.ops.gradients import mean_grad, num_parts

KEYS = jax.random.split(jax.random.key(0), 3)
OBS, TARGET = jax.random.normal(KEYS[0], (96, 3)), jax.random.normal(KEYS[1], (96,))
NETWORK = MLP((16, 1))
PARAMS = NETWORK.init(KEYS[2], OBS)


def loss(params, minibatch):
    obs, target = minibatch["obs"], minibatch["target"]
    error = NETWORK.apply(params, obs)[:, 0] - target
    return jnp.square(error).mean(), {"error": jnp.abs(error).mean(), "rows": error}


@pytest.mark.parametrize("parts", [1, 2, 8, 96])
def test_parts_change_the_rounding_alone(parts):
    minibatch = {"obs": OBS, "target": TARGET}
    expected, others = jax.grad(loss, has_aux=True)(PARAMS, minibatch)
    got, got_others = jax.jit(mean_grad, static_argnums=(0, 3))(loss, PARAMS, minibatch, parts)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), got, expected)
    assert got_others["error"].shape == (parts,)
    np.testing.assert_allclose(got_others["error"].mean(), others["error"], rtol=1e-5)
    np.testing.assert_allclose(got_others["rows"].ravel(), others["rows"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_rows", [1, 7, 255, 256, 512, 1000, 16_384, 16_385, 65_537])
@pytest.mark.parametrize("cores", [1, 2, 16])
def test_parts_are_equal_and_not_small(num_rows, cores, monkeypatch):
    monkeypatch.setattr(gradients.platform, "num_cores", lambda: cores)
    share = max(1, cores // 2) if num_rows > 2048 else 1
    for size, least in ((100, gradients.ROWS), (10**6, gradients.WIDE_ROWS)):
        parts = num_parts(num_rows, jax.ShapeDtypeStruct((size,), jnp.float32))
        assert num_rows % parts == 0
        assert parts == 1 or num_rows // parts >= least * share
    assert num_parts(16_384, PARAMS) == 64 // max(1, cores // 2)


def test_a_gpu_computes_the_minibatch_at_once(monkeypatch):
    monkeypatch.setattr(gradients.jax, "default_backend", lambda: "gpu")
    assert num_parts(10**6, PARAMS) == 1
