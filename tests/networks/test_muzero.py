"""The networks of MuZero: shapes, the scale of states, and the errors of other networks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.networks.muzero import check_muzero_network, muzero_network, unit_scaled
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

SPEC = EnvSpec({"image": (4, 4, 2), "speed": (), "legal": (3,)}, 3, action_mask="legal")


def test_states_of_trees_of_observations_are_vectors_in_the_unit_interval():
    network = muzero_network(SPEC, 5, (16, 8))
    key = jax.random.key(0)
    obs = {"image": jax.random.normal(key, (4, 6, 4, 4, 2)), "speed": jnp.ones((4, 6)),
           "legal": jnp.ones((4, 6, 3), bool)}  # fmt: skip
    action = jnp.ones((4, 6), jnp.int32)
    params = jax.jit(network.init)(key, obs, action)
    apply: Any = network.apply
    state = apply(params, obs, method="represent")
    next_state, reward = apply(params, state, action, method="dynamics")
    policy, value = apply(params, next_state, method="predict")
    for x in (state, next_state):
        assert x.shape == (4, 6, 8)
        np.testing.assert_allclose(x.min(axis=-1), 0.0, atol=1e-6)
        np.testing.assert_allclose(x.max(axis=-1), 1.0, atol=1e-6)
    assert (reward.shape, policy.shape, value.shape) == ((4, 6, 11), (4, 6, 3), (4, 6, 11))
    other = apply(params, state, 1 - action, method="dynamics")[0]
    assert np.abs(other - next_state).max() > 1e-3


def test_states_are_scaled_and_a_constant_state_is_finite():
    np.testing.assert_array_equal(unit_scaled(jnp.array([[2.0, 4.0, 3.0]])), [[0.0, 1.0, 0.5]])
    assert np.isfinite(jax.grad(lambda x: unit_scaled(x).sum())(jnp.ones((1, 3)))).all()


def test_networks_of_another_form_are_refused():
    check_muzero_network(muzero_network(SPEC, 5, (8,)), SPEC)
    with pytest.raises(ValueError, match="without the method `represent`"):
        check_muzero_network(nn.Dense(3), SPEC)
    with pytest.raises(ValueError, match=r"must be \(2, K\), \(2, 3\)"):
        check_muzero_network(muzero_network(SPEC._replace(num_actions=4), 5, (8,)), SPEC)
