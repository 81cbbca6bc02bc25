"""Config classes: floats are leaves, other fields are static, and values are checked."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.agents.ppo import PPOConfig
from rljax.config import RunConfig, config, field_types, from_mapping, option

FLOATS = sorted(name for name, kind in field_types(PPOConfig).items() if kind is float)
SMALL = PPOConfig(total_timesteps=1024, num_envs=4, num_steps=16)


def test_the_leaves_are_the_floats():
    leaves, _ = jax.tree.flatten(PPOConfig())
    defaults = [getattr(PPOConfig(), name) for name in field_types(PPOConfig) if name in FLOATS]
    assert leaves == defaults
    assert {"learning_rate", "gamma", "gae_lambda", "clip_eps"} <= set(FLOATS)


def test_one_compilation_serves_all_learning_rates():
    traces = []

    @jax.jit
    def run(config):
        traces.append(config.num_envs)
        return config.learning_rate * config.num_envs

    for learning_rate in (1e-3, 1e-4, 0.5):
        config = dataclasses.replace(SMALL, learning_rate=learning_rate)
        np.testing.assert_allclose(run(config), learning_rate * 4, rtol=1e-6)
    assert traces == [4]
    run(dataclasses.replace(SMALL, num_envs=8))
    assert traces == [4, 8]
    for change in ({"anneal_lr": False}, {"activation": "relu"}, {"hidden_sizes": (8,)}):
        run(dataclasses.replace(SMALL, **change))
    assert len(traces) == 5


def test_integers_in_float_fields_are_floats():
    """`gamma=1` and `gamma=1.0` share one compiled program."""
    traces = []

    @jax.jit
    def run(config):
        traces.append(config.gamma)
        return config.gamma

    for gamma in (0.99, from_mapping(PPOConfig, {"gamma": 1}).gamma, 1.0):
        run(dataclasses.replace(SMALL, gamma=gamma))
    assert len(traces) == 1


@pytest.mark.parametrize("name", FLOATS)
def test_any_float_can_be_swept(name):
    values = jnp.array([0.25, 0.5, 1.0])
    swept = dataclasses.replace(SMALL, **{name: values})
    leaves, structure = jax.tree.flatten(swept)
    axes = [0 if leaf is values else None for leaf in leaves]
    assert axes.count(0) == 1

    def run(*leaves):
        config = jax.tree.unflatten(structure, leaves)
        return getattr(config, name) * config.num_envs

    np.testing.assert_allclose(jax.vmap(run, axes)(*leaves), 4 * values)
    inner = jax.vmap(lambda x: getattr(dataclasses.replace(SMALL, **{name: x}), name) * 4)
    np.testing.assert_allclose(inner(values), 4 * values)


def test_a_config_can_be_the_in_axes_of_vmap():
    """A config whose floats are 0 or None."""
    rates = jnp.array([1e-3, 1e-4])
    swept = dataclasses.replace(SMALL, learning_rate=rates)
    axes = jax.tree.map(lambda leaf: 0 if leaf is rates else None, swept)
    got = jax.vmap(lambda config: config.learning_rate * config.num_envs, (axes,))(swept)
    np.testing.assert_allclose(got, rates * 4)


def test_a_config_can_be_differentiated():
    """A gradient has the structure of a config, and its values are not checked."""
    gradient = jax.grad(lambda config: -3.0 * config.learning_rate)(SMALL)
    assert gradient.learning_rate == -3.0
    assert gradient.gamma == 0.0


def test_configs_pass_through_transformations():
    same = jax.jit(lambda config: config)(SMALL)
    np.testing.assert_allclose(jax.tree.leaves(same), jax.tree.leaves(SMALL), rtol=1e-6)
    assert jax.tree.structure(same) == jax.tree.structure(SMALL)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[SMALL] * 3)
    assert stacked.gamma.shape == (3,)
    shapes = jax.eval_shape(lambda config: config, SMALL)
    assert shapes.learning_rate.shape == ()


def test_configs_are_frozen_and_comparable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.gamma = 0.5
    assert dataclasses.replace(SMALL) == SMALL
    assert dataclasses.replace(SMALL, gamma=0.5) != SMALL
    assert len({SMALL, dataclasses.replace(SMALL), PPOConfig()}) == 2


def test_users_can_define_configs():
    @config
    class Mine(RunConfig):
        bonus: float = option(0.1, "weight of the bonus", low=0)
        depth: int = option(2, "number of hidden layers", low=1, high=4)

    leaves = jax.tree.leaves(Mine())
    assert leaves == [0.99, 0.1]
    assert from_mapping(Mine, {"depth": "3"}).depth == 3
    with pytest.raises(ValueError, match=r"`depth` is 5.*at least 1 and at most 4"):
        Mine(depth=5)


@pytest.mark.parametrize(
    "values",
    [
        {"num_envs": 4.5},
        {"total_timesteps": 1e6},
        {"num_envs": "8"},
        {"num_envs": [4, 8]},
        {"num_envs": True},
        {"anneal_lr": "false"},
        {"gamma": "0.9"},
        {"gamma": 1},
        {"hidden_sizes": 64},
        {"activation": 3},
    ],
    ids=str,
)
def test_a_config_made_directly_has_values_of_the_types_of_its_fields(values):
    """A value is converted to the type of its field or refused: `"false"` would be true."""
    (name,) = values
    try:
        got, message = getattr(PPOConfig(**values), name), ""
    except ValueError as error:
        got, message = None, str(error)
    kind = field_types(PPOConfig)[name]
    assert f"`{name}`" in message or type(got) is (kind if isinstance(kind, type) else tuple)


def test_minibatches_must_divide_the_rollout():
    with pytest.raises(ValueError, match=r"`num_minibatches` is 5, .* 4 x 16 = 64"):
        PPOConfig(num_envs=4, num_steps=16, num_minibatches=5)


def test_a_run_has_at_least_one_update():
    with pytest.raises(ValueError, match=r"`total_timesteps` is 63, .* 64"):
        PPOConfig(total_timesteps=63, num_envs=4, num_steps=16)
    assert PPOConfig(total_timesteps=64, num_envs=4, num_steps=16).num_updates == 1


def test_a_run_takes_at_most_total_timesteps():
    for total in (64, 127, 128, 1000):
        made = PPOConfig(total_timesteps=total, num_envs=4, num_steps=16)
        assert made.num_updates == total // 64


def test_a_mapping_overrides_values_of_a_base():
    got = from_mapping(PPOConfig, {"gamma": 0.5}, base=SMALL)
    assert got == dataclasses.replace(SMALL, gamma=0.5)
    assert from_mapping(PPOConfig, {}) == PPOConfig()


def test_tracers_are_not_checked():
    @partial(jax.jit, static_argnums=0)
    def run(name, x):
        return getattr(dataclasses.replace(SMALL, **{name: x}), name)

    for name in FLOATS:
        assert run(name, 0.5) == 0.5
