"""Policies of random parameters, without training, for tests."""

import jax
import jax.numpy as jnp
import numpy as np

from rljax.experiment.make_plan import make_plan
from rljax.experiment.policy import Policy
from rljax.ops.precision import in_32_bits


@in_32_bits  # as in training
def random_state(plan, seed=0):
    """Returns an agent's state whose floats are random; variances are positive, and counts 1."""
    config = plan.config
    agent = plan.make_agent(config, plan.build_env(config.num_envs))
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(path, x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.lax.full_like(x, 0)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.ones(x.shape, x.dtype)
        normal = rng.normal(size=x.shape)
        if getattr(path[-1], "name", "") in ("variance", "std"):
            return jnp.asarray(np.abs(normal) + 0.1, x.dtype)
        scale = 1 / np.sqrt(x.shape[0]) if x.ndim > 1 else 0.1  # small biases
        return jnp.asarray(scale * normal, x.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_policy(agent, env, *, seed=0, greedy=True, random_seed=0, **options):
    """Returns a policy of random parameters."""
    plan = make_plan(agent, env, **options)
    return Policy(plan, 0, random_state(plan, seed), greedy=greedy, random_seed=random_seed)


def random_observations(policy, size, seed=0):
    """Returns a batch of observations, as NumPy arrays."""
    rng, spec = np.random.default_rng(seed), policy.plan.env.spec

    def draw(x):
        shape = size, *x.shape
        if x.dtype == bool:
            mask = rng.random(shape) < 0.5
            mask[..., 0] = True
            return mask
        if np.issubdtype(x.dtype, np.integer):
            return rng.integers(0, spec.num_states or 256, shape).astype(x.dtype)
        return rng.normal(size=shape).astype(x.dtype)

    return jax.tree.map(draw, policy.program.obs)
