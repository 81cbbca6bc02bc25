"""SimBa: its networks, optimizers and observation statistics, in the gradient step of SAC."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rljax.agents.sac import SACConfig, sac
from rljax.agents.simba import SimBaConfig, simba
from rljax.networks.residual import ResidualCritic, ResidualPolicy, ResidualTorso
from rljax.types import EnvSpec, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

SPEC = EnvSpec(obs_shape=(3,), action_shape=(2,), num_envs=2)
CONFIG = SimBaConfig(
    num_envs=2, num_steps=4, total_timesteps=80, buffer_size=80, batch_size=8, learning_starts=8,
    train_frequency=8, hidden_sizes=(6, 6), actor_hidden_sizes=(4,), actor_learning_rate=0.01,
    critic_learning_rate=0.02, alpha_learning_rate=0.03,
)  # fmt: skip


def rollout(seed=0):
    rng = np.random.default_rng(seed)
    shape = CONFIG.num_steps, CONFIG.num_envs
    obs, next_obs = jnp.asarray(5 + 3 * rng.normal(size=(2, *shape, 3)), jnp.float32)
    action = jnp.asarray(rng.uniform(-1, 1, (*shape, 2)), jnp.float32)
    flags = jnp.zeros(shape, bool)
    return Transition(obs, action, jnp.ones(shape), flags, flags, next_obs)


def updated(agent, num_updates):
    """The state after updates with different rollouts, one gradient step each."""
    state, update = agent.init(jax.random.key(0)), jax.jit(agent.update)
    for i in range(num_updates):
        state, _ = update(state, rollout(i), jax.random.key(i))
    return state


def flat(params):
    return np.asarray(jax.flatten_util.ravel_pytree(params)[0], np.float64)


def test_defaults_are_those_of_the_paper():
    config = SimBaConfig()
    assert (config.hidden_sizes, config.actor_hidden_sizes) == ((512, 512), (128,))
    assert config.actor_learning_rate == config.critic_learning_rate == 1e-4
    assert (config.weight_decay, config.initial_alpha, config.tau) == (0.01, 0.01, 0.005)
    assert (config.target_entropy_per_dimension, config.normalize_obs) == (-0.5, True)


def test_hidden_sizes_are_those_of_the_critics_and_of_the_policy():
    params = jax.eval_shape(simba(CONFIG, SPEC).init, jax.random.key(0)).params
    for network, width, num_blocks in ((params.actor, 4, 1), (params.critic, 6, 2)):
        torso = network["params"]["torso"]
        assert torso["Dense_0"]["kernel"].shape[-1] == width
        assert sum("ResidualBlock" in name for name in torso) == num_blocks


@pytest.mark.parametrize("name", ["hidden_sizes", "actor_hidden_sizes"])
@pytest.mark.parametrize("sizes", [(64, 32), ()])
def test_unequal_widths_are_rejected(name, sizes):
    with pytest.raises(ValueError, match=f"`{name}` is .* all equal"):
        SimBaConfig(**{name: sizes})


def test_without_weight_decay_it_is_sac_with_residual_networks():
    """Adam is AdamW without decay."""
    state = updated(simba(dataclasses.replace(CONFIG, weight_decay=0.0), SPEC), 2)
    names = [field.name for field in dataclasses.fields(SACConfig)]
    config = SACConfig(**{name: getattr(CONFIG, name) for name in names})
    policy = ResidualPolicy(ResidualTorso((4,)), action_size=2)
    critic = ResidualCritic(ResidualTorso((6, 6)))
    expected = updated(sac(config, SPEC, policy=policy, critic=critic), 2)
    np.testing.assert_allclose(flat(state.params), flat(expected.params), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["actor", "critic"])
def test_weight_decay_shrinks_parameters_by_its_product_with_the_learning_rate(name):
    """The step of Adam does not depend on it, if the critics in the policy's loss are equal."""
    rates = {"actor_learning_rate": 1e-12, "critic_learning_rate": 1e-12}
    config = dataclasses.replace(CONFIG, **(rates | {f"{name}_learning_rate": 0.02}))
    start, plain, decayed = (
        flat(getattr(updated(simba(c, SPEC), num_updates).params, name))
        for c, num_updates in (
            (config, 0), (dataclasses.replace(config, weight_decay=0.0), 1),
            (dataclasses.replace(config, weight_decay=0.5), 1),
        )
    )  # fmt: skip
    assert np.abs(plain - start).max() > 0.01
    np.testing.assert_allclose(plain - decayed, 0.02 * 0.5 * start, rtol=1e-3, atol=1e-7)


def test_an_optimizer_given_as_an_argument_replaces_adamw():
    agent = simba(CONFIG, SPEC, actor_optimizer=optax.sgd(0.0), critic_optimizer=optax.sgd(0.0))
    start, end = agent.init(jax.random.key(0)), updated(agent, 1)
    np.testing.assert_array_equal(flat(start.params.actor), flat(end.params.actor))
    np.testing.assert_array_equal(flat(start.params.critic), flat(end.params.critic))


def test_policies_see_observations_standardized_by_all_rollouts():
    agent = simba(CONFIG, SPEC)
    state = updated(agent, 2)
    seen = np.concatenate([np.asarray(rollout(i).obs, np.float64).reshape(-1, 3) for i in (0, 1)])
    obs = np.array([[4.0, 6.0, 8.0], [5.0, 5.0, 5.0]], np.float32)
    standardized = (obs - seen.mean(axis=0)) / seen.std(axis=0)
    policy = ResidualPolicy(ResidualTorso((4,)), action_size=2)
    mean, _ = policy.apply(state.params.actor, jnp.asarray(standardized, jnp.float32))
    action = agent.greedy(state, jnp.asarray(obs), jax.random.key(0))
    np.testing.assert_allclose(action, np.tanh(mean), rtol=1e-4, atol=1e-5)
