"""The continuous probe environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import ARM, MATCH, TARGET, probe


@pytest.mark.parametrize("kind", [ARM, MATCH])
@pytest.mark.parametrize("action", [-2.0, -0.5, TARGET, 1.0])
def test_continuous_probes_reward_the_distance_to_the_best_action(kind, action):
    env = probe(kind, 1, continuous=True)
    assert (env.spec.num_actions, env.spec.action_shape) == (0, (1,))
    state, obs = env.reset(jax.random.key(0))
    _, step = env.step(state, jnp.array([action]), jax.random.key(1))
    best = TARGET if kind == ARM else state.sign
    np.testing.assert_allclose(step.reward, -abs(action - best), rtol=1e-6)
    assert obs[0] == (0 if kind == ARM else state.sign)
    assert step.terminated and not step.truncated
