"""The learned model: in a linear system with known noise, and what its training reads."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rljax.agents.ensemble import Members, check_observations, make_ensemble
from rljax.agents.model_schedule import EnsembleConfig, trainings_due
from rljax.config import RunConfig, config
from rljax.networks.ensemble import Prediction
from rljax.types import EnvSpec, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

SPEC = EnvSpec(obs_shape=(2,), action_shape=(1,), action_low=-2.0, action_high=2.0)
NOISE = np.array([0.3, 0.1, 0.5])  # standard deviations of the two numbers and of the reward
CAPACITY = 3_000


@config
class ModelConfig(EnsembleConfig, RunConfig):
    """Options of a model alone."""


def model_config(**options: Any) -> Any:
    return ModelConfig(**(SMALL | options))


SMALL: dict[str, Any] = {
    "num_models": 4, "num_elites": 2, "model_hidden_sizes": (32,), "model_batch_size": 64,
    "model_patience": 3,
}  # fmt: skip


def mean_outcome(obs, action):
    """The expected change and reward of the linear system, `[..., 3]`."""
    x, v, u = obs[..., 0], obs[..., 1], action[..., 0]
    return np.stack([0.5 * v, -0.4 * x + 0.8 * u, 2.0 * x + 10.0], axis=-1)


def transitions(num, seed=0):
    rng = np.random.default_rng(seed)
    obs, action = rng.normal(size=(num, 2)), rng.uniform(-2.0, 2.0, size=(num, 1))
    outcome = mean_outcome(obs, action) + NOISE * rng.normal(size=(num, 3))
    next_obs = obs + outcome[:, :2]
    arrays = obs, action, outcome[:, 2], next_obs
    obs, action, reward, next_obs = (jnp.asarray(x, jnp.float32) for x in arrays)
    truncated = jnp.asarray(rng.random(num) < 0.1)
    return Transition(obs, action, reward, next_obs[:, 0] > 1.0, truncated, next_obs)


def fitted(size=CAPACITY, options=None, spec=SPEC, data=None, seed=0, **pieces) -> Any:
    ensemble = make_ensemble(model_config(**(options or {})), spec, **pieces)
    init_key, fit_key = jax.random.split(jax.random.key(seed))
    data = transitions(CAPACITY) if data is None else data
    state = jax.jit(ensemble.init)(init_key)
    return ensemble, *jax.jit(ensemble.fit)(state, data, jnp.int32(size), fit_key)


def predicted(ensemble, state, obs, action):
    """Predictions `[E, N, ...]` of all elites for the same inputs."""
    members = ensemble.elites(state)
    copies = [jnp.broadcast_to(x, (state.elites.size, *x.shape)) for x in (obs, action)]
    return ensemble.predict(members, *copies)


@pytest.fixture(scope="module")
def model():
    return fitted()


def test_learns_the_mean_and_the_noise_of_a_linear_system(model):
    ensemble, state, _ = model
    data = transitions(500, seed=1)
    prediction = predicted(ensemble, state, data.obs, data.action)
    mean, std = np.asarray(prediction.mean), np.exp(0.5 * np.asarray(prediction.log_variance))
    expected = mean_outcome(np.asarray(data.obs), np.asarray(data.action))
    error = np.sqrt(np.square(mean - expected[None]).mean(axis=(0, 1)))
    assert (error < 0.35 * NOISE).all(), error / NOISE
    np.testing.assert_allclose(np.median(std, axis=(0, 1)), NOISE, rtol=0.15)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_predicted_intervals_hold_as_many_outcomes_as_they_say(model, level):
    ensemble, state, _ = model
    data = transitions(2_000, seed=2)
    prediction = predicted(ensemble, state, data.obs, data.action)
    outcome = np.column_stack([data.next_obs - data.obs, data.reward])
    std = np.exp(0.5 * np.asarray(prediction.log_variance))
    inside = (
        np.abs(outcome[None] - np.asarray(prediction.mean)) < stats.norm.ppf(0.5 + level / 2) * std
    )
    np.testing.assert_allclose(inside.mean(axis=(0, 1)), level, atol=0.06)


def test_learns_where_episodes_terminate(model):
    ensemble, state, _ = model
    data = transitions(1_000, seed=3)
    logits = np.asarray(predicted(ensemble, state, data.obs, data.action).termination)
    certain = (
        np.abs(np.asarray(data.obs + mean_outcome(data.obs, data.action)[:, :2])[:, 0] - 1) > 0.6
    )
    correct = (logits > 0) == np.asarray(data.terminated)[None]
    assert correct[:, certain].mean() > 0.97


def test_the_rule_of_the_task_replaces_the_learned_termination():
    def rule(obs, action, next_obs):
        return next_obs[..., 0] > 0.0

    for ensemble in (
        make_ensemble(model_config(), SPEC, termination=rule),
        make_ensemble(model_config(), SPEC._replace(termination=rule)),
    ):
        members = ensemble.elites(ensemble.init(jax.random.key(0)))
        obs, action = jax.random.normal(jax.random.key(1), (2, 50, 2)), jnp.zeros((2, 50, 1))
        next_obs, _, terminated = ensemble.step(members, obs, action, jnp.zeros((2, 50, 3)))
        np.testing.assert_array_equal(terminated, next_obs[..., 0] > 0)
        assert 0 < terminated.sum() < terminated.size


def test_empty_slots_and_time_limits_are_not_read():
    data = transitions(400)
    _, expected, _ = fitted(300, data=data)
    garbage = jax.tree.map(lambda x: x.at[300:].set(x.dtype.type(99)), data)
    garbage = garbage._replace(truncated=~garbage.truncated)
    _, state, _ = fitted(300, data=garbage)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(x, y)


def test_training_stops_early_where_there_is_nothing_to_learn():
    data = transitions(CAPACITY)
    noise = jax.random.normal(jax.random.key(5), data.reward.shape)
    data = data._replace(next_obs=data.obs + noise[:, None], reward=-noise)
    data = data._replace(obs=jnp.zeros_like(data.obs), action=jnp.zeros_like(data.action),
                         next_obs=noise[:, None] * jnp.ones((1, 2)))  # fmt: skip
    _, _, metrics = fitted(data=data)
    assert SMALL["model_patience"] <= metrics["charts/model_epochs"] <= 10
    np.testing.assert_allclose(metrics["losses/model_error"], 1.0, atol=0.1)  # its variance
    assert fitted(options={"model_max_epochs": 2})[2]["charts/model_epochs"] == 2


def test_elites_have_the_smallest_held_out_errors():
    """Networks 1 and 3 of a fake model predict exactly, the others a constant too much."""
    import flax.linen as nn

    class Fake(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            offset = self.param("offset", nn.initializers.zeros, ())
            mean = jnp.zeros((*inputs.shape[:-1], 3)) + offset
            return Prediction(mean, jnp.zeros_like(mean), jnp.zeros(inputs.shape[:-1]))

    config = model_config(model_learning_rate=1e-9)
    ensemble = make_ensemble(config, SPEC, model=Fake())
    state = ensemble.init(jax.random.key(0))
    offsets = {"params": {"offset": jnp.array([0.5, 0.01, -0.8, 0.02])}}
    data = transitions(200)
    state, metrics = ensemble.fit(
        state._replace(params=offsets), data, jnp.int32(200), jax.random.key(1)
    )
    assert state.elites.tolist() == [1, 3]
    np.testing.assert_allclose(metrics["losses/model_error"], 1.0, atol=0.3)


def test_samples_have_the_predicted_mean_and_scaled_noise(model):
    ensemble, state, _ = model
    members = ensemble.elites(state)
    obs, action = jnp.ones((2, 1, 2)), jnp.ones((2, 1, 1))
    prediction = ensemble.predict(members, obs, action)
    normal = jnp.broadcast_to(jnp.array([1.0, -2.0, 0.5]), (2, 1, 3))
    for scale in (1.0, 0.0):
        scaled = make_ensemble(model_config(model_noise=scale), SPEC)
        next_obs, reward, _ = scaled.step(members, obs, action, normal)
        sample = prediction.mean + scale * jnp.exp(0.5 * prediction.log_variance) * normal
        np.testing.assert_allclose(next_obs, obs + sample[..., :2], rtol=1e-5)
        np.testing.assert_allclose(reward, sample[..., 2], rtol=1e-5)


def test_discrete_actions_are_one_hot_inputs():
    spec = EnvSpec(obs_shape=(2,), num_actions=(3, 2))
    ensemble = make_ensemble(model_config(), spec)
    members = ensemble.elites(ensemble.init(jax.random.key(0)))
    weights = jax.tree.leaves(members.params)
    assert any(x.ndim == 3 and x.shape[1] == 2 + 3 + 2 for x in weights)
    assert isinstance(members, Members)
    prediction = ensemble.predict(members, jnp.zeros((2, 5, 2)), jnp.zeros((2, 5, 2), jnp.int32))
    assert prediction.mean.shape == (2, 5, 3)


@pytest.mark.parametrize("starts", [3, 10])
@pytest.mark.parametrize("num_new", [1, 4, 7])
def test_trainings_are_due_at_regular_steps(starts, num_new):
    config = model_config(model_train_frequency=8)
    object.__setattr__(config, "learning_starts", starts)
    due = {starts + 8 * i for i in range(20)}
    for steps in range(0, 70, num_new):
        expected = bool(due & set(range(steps + 1, steps + num_new + 1)))
        assert bool(trainings_due(config, jnp.int32(steps), num_new)) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_states": 5, "obs_shape": ()}, "int32[]"),
        ({"obs_shape": {"a": (2,), "b": (3,)}}, "float32[2], float32[3]"),
        ({"obs_shape": (84, 84, 4), "obs_dtype": "uint8"}, "uint8[84, 84, 4]"),
    ],
)
def test_other_observations_are_refused(changes, words):
    with pytest.raises(ValueError, match="one array of floats") as error:
        check_observations(SPEC._replace(**changes))
    assert words in str(error.value)


def test_more_elites_than_networks_are_refused():
    with pytest.raises(
        ValueError, match="`num_elites` is 5, but the ensemble has `num_models` = 4"
    ):
        make_ensemble(model_config(num_models=4, num_elites=5), SPEC)
