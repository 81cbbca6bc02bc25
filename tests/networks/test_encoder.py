"""The encoder of observations: convolutions against XLA's, trees of arrays, action masks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import networks
from rljax.networks.convolutions import NATURE_LAYERS, patches
from rljax.ops.observations import obs_structs
from rljax.types import EnvSpec, RecurrentObs

pytestmark = pytest.mark.usefixtures("quick_compiles")


def convolution(x, dense, size, stride):
    """XLA's convolution `[N, H, W, C]` with the weights of a dense layer over patches."""
    channels = x.shape[-1]
    blocks = size // stride
    kernel = dense["kernel"].reshape(blocks, blocks, stride, stride, channels, -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(size, size, channels, -1)
    out = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(out + dense["bias"][None, None, None])


def test_the_convolution_of_minatar():
    network = networks.MinAtarConvolution(channels=5)
    images = jax.random.normal(jax.random.key(0), (2, 3, 10, 9, 4))
    params = network.init(jax.random.key(1), images)
    x = convolution(images.reshape(6, 10, 9, 4), params["params"]["conv"], 3, 1)
    np.testing.assert_allclose(network.apply(params, images), x.reshape(2, 3, -1), atol=1e-4)


@pytest.mark.parametrize("shape", [(84, 84, 4), (50, 39, 1)])
def test_the_convolutions_of_dqn(shape):
    network = networks.NatureConvolution()
    images = jax.random.randint(jax.random.key(0), (2, 1, *shape), 0, 256).astype(jnp.uint8)
    params = network.init(jax.random.key(1), images)
    x = images.reshape(2, *shape) / 255.0
    for i, (_, size, stride) in enumerate(NATURE_LAYERS):
        x = convolution(x, params["params"][f"conv_{i}"], size, stride)
    out = network.apply(params, images)
    np.testing.assert_allclose(out, x.reshape(2, 1, -1), atol=1e-4)
    if shape[0] == 84:
        assert out.shape == (2, 1, 3136)  # 7 x 7 x 64, as in the paper


def test_patches_of_a_size_that_is_no_multiple_of_the_stride():
    x = jnp.arange(7.0 * 6).reshape(1, 7, 6, 1)
    assert patches(x, 4, 2).shape == (1, 2, 2, 16)
    assert sorted(patches(x, 4, 2)[0, 1, 0].tolist()) == sorted(x[0, 2:6, 0:4].ravel().tolist())


def test_the_convolution_is_chosen_by_the_shape():
    for shape, kind in {(10, 10, 4): "minatar", (84, 84, 4): "nature", (36, 35, 3): "minatar",
                        (2, 9, 3): "", (3,): "", (): ""}.items():  # fmt: skip
        assert networks.inputs_of(EnvSpec(shape)).convolutions == (kind,)
    assert networks.inputs_of(EnvSpec((10, 10, 4)), "mlp").convolutions == ("",)
    with pytest.raises(ValueError, match=r"`torso` is 'conv', .* of Cart have shape \(3,\)"):
        networks.inputs_of(EnvSpec((3,), env_id="Cart"), "conv")


class Observation(NamedTuple):
    grid: Any
    speed: Any
    legal: Any


TREES = {
    "dict": EnvSpec({"grid": (4, 5, 2), "speed": (), "legal": (6,)}, 6, action_mask="legal"),
    "NamedTuple": EnvSpec(Observation((4, 5, 2), (), (6,)), 6, action_mask="legal"),
    "tuple": EnvSpec(((4, 5, 2), ()), 6),
    "nested": EnvSpec({"a": {"b": (4, 5, 2)}, "c": ((), )}, 6),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_trees_are_concatenated_without_the_mask(name):
    spec = TREES[name]
    obs = networks.example_obs(spec, (7, 3))
    flat = networks.Encoder(networks.inputs_of(spec, "mlp"))
    assert flat.init_with_output(jax.random.key(0), obs)[0].shape == (7, 3, 4 * 5 * 2 + 1)
    with_images = networks.Encoder(networks.inputs_of(spec))
    out, params = with_images.init_with_output(jax.random.key(0), obs)
    assert out.shape == (7, 3, 2 * 3 * 16 + 1)
    assert len(jax.tree.leaves(params)) == 2


def test_state_indices_beside_a_mask_are_one_hot():
    spec = EnvSpec({"state": (), "legal": (2,)}, 2, num_states=3, action_mask="legal")
    obs = {"state": jnp.array([2, 0]), "legal": jnp.ones((2, 2), bool)}
    out = networks.Encoder(networks.inputs_of(spec)).apply({}, obs)
    assert out.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_example_observations_have_the_shapes_and_dtypes_of_the_spec():
    obs = networks.example_obs(EnvSpec(obs_shape=(4, 4, 1), obs_dtype="uint8"), (2, 3))
    assert obs.shape == (2, 3, 4, 4, 1) and obs.dtype == jnp.uint8
    assert networks.example_obs(EnvSpec(num_states=5)).dtype == jnp.int32
    obs = networks.example_obs(EnvSpec(obs_shape=(3,)), memory_size=6)
    assert isinstance(obs, RecurrentObs) and obs.memory.shape == (1, 6)
    spec = TREES["dict"]._replace(obs_dtype={"grid": "uint8", "speed": "float32", "legal": "bool"})
    dtypes = {name: x.dtype.name for name, x in networks.example_obs(spec).items()}
    assert dtypes == {"grid": "uint8", "speed": "float32", "legal": "bool"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EnvSpec({"a": 3}, 2), "`obs_shape` is {'a': 3}, but it must be a shape such as"),
        (EnvSpec({"a": (3,), "b": ()}, 2, obs_dtype=("bool", "bool")), "must be one dtype, or a"),
        (EnvSpec({"a": (3,)}, 2, action_mask="b"), r"no such field \(its fields: `a`\)"),
        (EnvSpec((3,), 2, action_mask="b"), r"no such field \(its fields: none\)"),
    ],
)
def test_wrong_descriptions_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        obs_structs(spec)
