"""Policies as distributions, sampling, and the map between raw actions and the box."""

from functools import cache

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rljax import networks
from rljax.types import EnvSpec

KEY = jax.random.key(0)
VECTOR = EnvSpec(obs_shape=(3,), num_actions=4)


def test_normal_by_hand():
    policy = networks.normal(jnp.zeros(1), jnp.full(1, 0.5))
    np.testing.assert_allclose(policy.entropy(), 0.725791, atol=1e-5)
    np.testing.assert_allclose(policy.log_prob(jnp.full(1, 0.2)), -0.305791, atol=1e-5)


def test_normal_sums_over_its_dimensions():
    mean, std = np.array([0.0, 1.0, -2.0]), np.array([0.5, 2.0, 1.0])
    policy = networks.normal(jnp.array(mean), jnp.array(std))
    x = np.array([0.2, 0.0, -1.0])
    expected = scipy.stats.norm(mean, std)
    np.testing.assert_allclose(policy.log_prob(jnp.array(x)), expected.logpdf(x).sum(), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), expected.entropy().sum(), rtol=1e-5)


def test_log_probability_of_a_nearly_impossible_action():
    """Computed from the logits; `log(p + eps)` would not fall below -11.5."""
    policy = networks.like((jnp.array([100.0, 0.0]),))
    np.testing.assert_allclose(policy.log_prob(1), -100.0, rtol=1e-6)
    np.testing.assert_allclose(policy.log_prob(0), 0.0, atol=1e-6)


def categorical(*probs):
    return (jnp.log(jnp.array(probs)),)


def gaussian(mean, std):
    return jnp.array([mean]), jnp.array([std])


@pytest.mark.parametrize(
    ("old", "new", "forward", "reverse"),
    [
        (gaussian(0.0, 1.0), gaussian(1.0, 2.0), 0.443147, 1.306853),
        (categorical(0.7, 0.2, 0.1), categorical(0.5, 0.3, 0.2), 0.085123, 0.092033),
    ],
    ids=["normal", "categorical"],
)
def test_kl_divergence_is_not_symmetric(old, new, forward, reverse):
    old, new = networks.like(old), networks.like(new)
    np.testing.assert_allclose(old.kl_divergence(new), forward, atol=1e-5)
    np.testing.assert_allclose(new.kl_divergence(old), reverse, atol=1e-5)
    np.testing.assert_allclose(old.kl_divergence(old), 0.0, atol=1e-6)


def test_kl_divergence_sums_over_dimensions():
    old = networks.normal(jnp.zeros((2, 3)), jnp.ones((2, 3)))
    new = networks.normal(jnp.ones((2, 3)), jnp.full((2, 3), 2.0))
    np.testing.assert_allclose(old.kl_divergence(new), [3 * 0.443147] * 2, atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "action"),
    [
        (distrax.Categorical(logits=jnp.array([[1.0, 2.0, 0.0]])), jnp.array([1])),
        (distrax.Categorical(probs=jnp.array([[0.5, 0.3, 0.2]])), jnp.array([2])),
        (networks.normal(jnp.array([[1.0, 2.0]]), jnp.array([[0.5, 3.0]])), jnp.zeros((1, 2))),
        (
            distrax.MultivariateNormalDiag(jnp.array([[1.0, 2.0]]), jnp.array([[0.5, 3.0]])),
            jnp.zeros((1, 2)),
        ),
    ],
    ids=["logits", "probs", "normal", "multivariate normal"],
)
def test_like_inverts_parameters(policy, action):
    again = networks.like(networks.parameters(policy))
    np.testing.assert_allclose(again.log_prob(action), policy.log_prob(action), rtol=1e-5)
    np.testing.assert_allclose(again.entropy(), policy.entropy(), rtol=1e-5)
    np.testing.assert_allclose(again.mode(), policy.mode(), rtol=1e-6)


def test_other_distributions_are_refused():
    with pytest.raises(ValueError, match=r"Bernoulli.*Categorical"):
        networks.parameters(distrax.Bernoulli(logits=jnp.zeros(2)))


# Sampling


CHOICE = EnvSpec(num_actions=4, num_envs=4000)
MOVE = EnvSpec(action_shape=(2,), num_envs=4000)


@cache
def noise_of(spec):
    return networks.policy_noise(spec, KEY, 5)


@pytest.mark.parametrize("logits", [(0.0, 0.0, 0.0, 0.0), (1.0, -1.0, 0.5, 2.0)])
def test_categorical_samples_have_the_probabilities_of_the_policy(logits):
    policy = networks.like((jnp.tile(jnp.array(logits), (5, 4000, 1)),))
    action = networks.sample(policy, noise_of(CHOICE))
    counts = np.bincount(np.asarray(action).reshape(-1), minlength=4)
    expected = scipy.special.softmax(logits) * 20_000
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


def test_normal_samples_have_the_moments_of_the_policy():
    mean, std = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    policy = networks.normal(*(jnp.tile(jnp.array(x), (5, 4000, 1)) for x in (mean, std)))
    action = np.asarray(networks.sample(policy, noise_of(MOVE))).reshape(-1, 2)
    assert action.shape == (20_000, 2)
    for i in range(2):
        expected = scipy.stats.norm(mean[i], std[i])
        assert scipy.stats.kstest(action[:, i], expected.cdf).pvalue > 1e-3


@pytest.mark.parametrize("spec", [CHOICE, MOVE])
def test_noise_is_independent_between_steps_environments_and_actions(spec):
    noise = np.asarray(noise_of(spec))
    assert len(np.unique(noise)) > 0.99 * noise.size
    for one, other in (
        (noise[:-1], noise[1:]),
        (noise[:, :-1], noise[:, 1:]),
        (noise[..., :-1], noise[..., 1:]),
    ):
        correlation = np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1]
        assert abs(correlation) < 4 / one.size**0.5


# Actions in the box


@pytest.mark.parametrize(("low", "high", "expected"), [(-2.0, 2.0, 1.0), (0.0, 10.0, 7.5)])
def test_to_box_by_hand(low, high, expected):
    raw = jnp.array([[0.5], [-9.0], [-1.0], [0.0], [1.0], [9.0]])
    middle = (low + high) / 2
    for bounds in ((low, high), (np.array([low]), np.array([high]))):
        got = networks.to_box(EnvSpec((), 0, (1,), *bounds), raw)
        np.testing.assert_allclose(got[:, 0], [expected, low, low, middle, high, high])


def test_to_box_of_several_dimensions():
    low, high = np.zeros((2, 3)) - [[2.0], [0.0]], np.arange(1.0, 7.0).reshape(2, 3)
    got = networks.to_box(EnvSpec((), 0, (2, 3), low, high), jnp.ones((4, 5, 6)).at[0].set(0.5))
    assert got.shape == (4, 5, 2, 3)
    np.testing.assert_allclose(got[3, 1], high)
    np.testing.assert_allclose(got[0, 1], low + 0.75 * (high - low), rtol=1e-6)


@pytest.mark.parametrize("convert", [networks.to_box, networks.from_box])
def test_discrete_actions_are_unchanged(convert):
    action = jnp.array([0, 3, 1])
    np.testing.assert_array_equal(convert(VECTOR, action), action)
    assert convert(VECTOR, action).dtype == action.dtype


LOW, HIGH = np.array([[-2.0, 0.0, -5.0], [1.0, -0.1, 3.0]]), np.arange(4.0, 10.0).reshape(2, 3)
BOUNDS = {"scalars": (-2.0, 3.0), "of each dimension": (LOW, HIGH), "mixed": (-7.5, HIGH)}


@pytest.mark.parametrize("bounds", BOUNDS)
@given(st.integers(0, 2**32 - 1))
def test_from_box_inverts_to_box(bounds, seed):
    """Against numpy in float64, for several leading axes and asymmetric bounds."""
    low, high = BOUNDS[bounds]
    spec = EnvSpec((), 0, (2, 3), low, high)
    raw = np.random.default_rng(seed).uniform(-1.0, 1.0, (4, 5, 6))
    expected = low + (raw.reshape(4, 5, 2, 3) + 1.0) / 2.0 * (high - np.asarray(low))
    action = networks.to_box(spec, jnp.asarray(raw))
    np.testing.assert_allclose(action, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(networks.from_box(spec, action), raw, atol=1e-5)
    again = networks.to_box(spec, networks.from_box(spec, jnp.asarray(expected)))
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-5)


def test_from_box_by_hand():
    spec = EnvSpec((), 0, (2,), np.array([0.0, -4.0]), np.array([10.0, 4.0]))
    raw = networks.from_box(spec, jnp.array([[0.0, -4.0], [7.5, 0.0], [10.0, 4.0]]))
    np.testing.assert_allclose(raw, [[-1.0, -1.0], [0.5, 0.0], [1.0, 1.0]], atol=1e-6)


def test_from_box_of_an_empty_range_is_zero():
    """A dimension that has a single value leaves no choice, and must not give NaN."""
    spec = EnvSpec((), 0, (2,), np.array([1.0, -1.0]), np.array([1.0, 1.0]))
    np.testing.assert_array_equal(networks.from_box(spec, jnp.array([1.0, 0.5])), [0.0, 0.5])
