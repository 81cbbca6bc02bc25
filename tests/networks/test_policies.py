"""Orthogonal initialisation, networks, and policies as distributions."""

from functools import cache, partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rljax import networks
from rljax.types import EnvSpec

KEY = jax.random.key(0)


# Orthogonal initialisation

SHAPES = {
    "tall": (64, 16),
    "wide": (16, 64),
    "square": (64, 64),
    "one column": (7, 1),
    "one row": (1, 7),
    "one": (1, 1),
    "tall convolution": (3, 3, 4, 16),
    "wide convolution": (3, 3, 1, 16),
}


@partial(jax.jit, static_argnums=1)
def kernel_of(key, shape):
    return networks.orthogonal()(key, shape)


def assert_orthonormal(kernel, scale=1.0):
    """The columns of `[prod(...) in, out]` are orthonormal, or its rows where it is wide."""
    matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]) / scale
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_orthogonal_kernels_are_orthonormal(name):
    kernel = kernel_of(KEY, SHAPES[name])
    assert kernel.shape == SHAPES[name]
    assert kernel.dtype == jnp.float32
    assert_orthonormal(kernel)


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (64, 64)])
def test_orthogonal_kernels_under_vmap(shape):
    keys = jax.random.split(KEY, 4)
    for key, kernel in zip(keys, jax.vmap(lambda key: kernel_of(key, shape))(keys), strict=True):
        assert_orthonormal(kernel)
        np.testing.assert_allclose(kernel, kernel_of(key, shape), atol=1e-5)


def test_orthogonal_kernels_have_a_scale():
    kernel = networks.orthogonal(2.0**0.5)(KEY, (64, 16))
    assert_orthonormal(kernel, 2.0**0.5)
    np.testing.assert_allclose(kernel_of(KEY, (64, 16)) * 2.0**0.5, kernel, atol=1e-5)


def test_orthogonal_kernels_are_made_of_their_key():
    np.testing.assert_array_equal(kernel_of(KEY, (64, 16)), kernel_of(KEY, (64, 16)))
    other = kernel_of(jax.random.key(1), (64, 16))
    assert np.abs(kernel_of(KEY, (64, 16)) - other).max() > 0.1


def test_orthogonal_of_a_nearly_singular_draw():
    """One Gaussian in some 10^5 of this size has a singular value of 1e-7 of its norm."""
    assert_orthonormal(kernel_of(jax.random.key(458487), (8, 8)))


@pytest.fixture(scope="module")
def draws():
    """Many 4 x 4 kernels, and as many draws from the uniform (Haar) distribution."""
    keys = jax.random.split(KEY, 4000)
    ours = jax.jit(jax.vmap(lambda key: networks.orthogonal()(key, (4, 4))))(keys)
    return np.asarray(ours), scipy.stats.ortho_group(4, seed=0).rvs(4000)


def test_orthogonal_entries_have_the_moments_of_haar(draws):
    ours, _ = draws
    np.testing.assert_allclose(ours.mean(0), np.zeros((4, 4)), atol=4 * 0.5 / 4000**0.5)
    np.testing.assert_allclose(np.square(ours).mean(0), np.full((4, 4), 1 / 4), atol=0.02)
    np.testing.assert_allclose((ours**4).mean(), 3 / (4 * 6), rtol=0.02)


@pytest.mark.parametrize(
    "statistic",
    [
        lambda q: q[:, 0, 0],
        lambda q: q[:, 3, 1],
        lambda q: np.trace(q, axis1=1, axis2=2),  # unlike entries, it feels the signs of a QR
        lambda q: q[:, 0, 0] * q[:, 1, 1],
        np.linalg.det,
    ],
    ids=["first entry", "other entry", "trace", "product", "determinant"],
)
def test_orthogonal_is_haar(draws, statistic):
    ours, theirs = (statistic(q).round(4) for q in draws)
    assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-3


# Networks

VECTOR = EnvSpec(obs_shape=(3,), num_actions=4)
IMAGE = EnvSpec(obs_shape=(10, 10, 4), num_actions=6)
BOX = EnvSpec(obs_shape=(3,), action_shape=(2,))
DEEP_BOX = EnvSpec(obs_shape=(3,), action_shape=(2, 3))


@cache
def initialised(spec):
    network = networks.actor_critic_network(spec, (16, 16), "tanh")
    return network, jax.jit(network.init)(KEY, jnp.zeros((1, *spec.obs_shape)))


@pytest.mark.parametrize(("spec", "size"), [(VECTOR, 4), (IMAGE, 6), (BOX, 2), (DEEP_BOX, 6)])
def test_actor_critic_has_a_policy_and_a_value_for_each_observation(spec, size):
    spec = spec._replace(num_envs=5)
    network = networks.actor_critic_network(spec, (16, 16), "tanh")

    def everything(key, obs):
        policy, value = network.apply(network.init(key, obs[:1, 0]), obs)
        arrays = networks.parameters(policy)
        noise = networks.policy_noise(spec, key, 7)
        action = networks.sample(policy, noise)
        scalars = (
            value, policy.log_prob(action), policy.entropy(),
            networks.like(arrays).kl_divergence(policy),
        )  # fmt: skip
        return scalars, (action, policy.mode()), (noise, *arrays)

    obs = jax.ShapeDtypeStruct((7, 5, *spec.obs_shape), jnp.float32)
    scalars, actions, vectors = jax.eval_shape(everything, KEY, obs)
    assert [x.shape for x in scalars] == [(7, 5)] * 4
    assert [x.shape for x in actions] == [(7, 5) if spec.num_actions else (7, 5, size)] * 2
    assert [x.shape for x in vectors] == [(7, 5, size)] * (2 if spec.num_actions else 3)


@pytest.mark.parametrize("spec", [IMAGE, BOX])
def test_an_observation_is_seen_alike_in_any_company(spec):
    network = networks.actor_critic_network(spec, (16, 16), "tanh")
    random = np.random.default_rng(0).normal
    obs = random(size=(2, 3, *spec.obs_shape)).astype(np.float32)
    shapes = jax.eval_shape(network.init, KEY, obs[:1, 0])
    params = jax.tree.map(lambda x: random(0, 0.3, x.shape).astype(np.float32), shapes)

    @jax.jit
    def see(obs):
        policy, value = network.apply(params, obs)
        return value, *networks.parameters(policy)

    for together, alone in zip(see(obs), see(obs[1, 2]), strict=True):
        np.testing.assert_allclose(together[1, 2], alone, rtol=1e-4, atol=1e-5)
    values = see(obs)[0]
    assert np.std(values) > 0.01


def test_first_policies_are_nearly_uniform():
    """A last layer of scale .01: nothing is preferred before anything is learned."""
    obs = jax.random.normal(KEY, (50, 3))
    network, params = initialised(VECTOR)
    policy, value = network.apply(params, obs)
    np.testing.assert_allclose(policy.probs, np.full((50, 4), 0.25), atol=0.02)
    assert value.std() > 0.1
    network, params = initialised(BOX)
    mean, std = networks.parameters(network.apply(params, obs)[0])
    np.testing.assert_allclose(mean, np.zeros((50, 2)), atol=0.05)
    np.testing.assert_array_equal(std, np.ones((50, 2)))


def test_layers_are_initialised_orthogonally():
    params = initialised(VECTOR)[1]["params"]
    for torso in ("actor", "critic"):
        assert_orthonormal(params[torso]["Dense_0"]["kernel"], 2.0**0.5)
        assert_orthonormal(params[torso]["Dense_1"]["kernel"], 2.0**0.5)
    assert_orthonormal(params["logits"]["kernel"], 0.01)
    assert_orthonormal(params["value"]["kernel"], 1.0)
    assert_orthonormal(initialised(BOX)[1]["params"]["mean"]["kernel"], 0.01)


@pytest.mark.parametrize("spec", [VECTOR, BOX])
def test_vectors_get_separate_torsos(spec):
    """So the value loss does not reach what the policy is made of, nor the other way."""
    network, params = initialised(spec)
    obs = jnp.ones((2, 3))

    def value(params):
        return network.apply(params, obs)[1].sum()

    def preference(params):
        return networks.parameters(network.apply(params, obs)[0])[0][:, 0].sum()

    def reached(function):
        grads = jax.jit(jax.grad(function))(params)["params"]
        return {part for part, x in grads.items() if moves(x)}

    assert reached(value) == {"critic", "value"}
    assert reached(preference) == {"actor", "logits" if spec.num_actions else "mean"}


def moves(grads):
    return any(np.abs(x).max() > 0 for x in jax.tree.leaves(grads))


def test_activation_is_the_one_asked_for():
    x = jnp.linspace(-2, 2, 6).reshape(2, 3)
    for name, function in networks.ACTIVATIONS.items():
        network = networks.MLP((4,), name)
        params = network.init(KEY, x)
        kernel = params["params"]["Dense_0"]["kernel"]
        np.testing.assert_allclose(network.apply(params, x), function(x @ kernel), atol=1e-5)


# Policies


def test_normal_by_hand():
    policy = networks.normal(jnp.zeros(1), jnp.full(1, 0.5))
    np.testing.assert_allclose(policy.entropy(), 0.725791, atol=1e-5)
    np.testing.assert_allclose(policy.log_prob(jnp.full(1, 0.2)), -0.305791, atol=1e-5)


def test_normal_adds_up_its_dimensions():
    mean, std = np.array([0.0, 1.0, -2.0]), np.array([0.5, 2.0, 1.0])
    policy = networks.normal(jnp.array(mean), jnp.array(std))
    x = np.array([0.2, 0.0, -1.0])
    expected = scipy.stats.norm(mean, std)
    np.testing.assert_allclose(policy.log_prob(jnp.array(x)), expected.logpdf(x).sum(), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), expected.entropy().sum(), rtol=1e-5)


def test_log_probability_of_the_impossible():
    """From the logits: `log(p + eps)` would stop at -11.5."""
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
def test_kl_divergence_has_a_direction(old, new, forward, reverse):
    old, new = networks.like(old), networks.like(new)
    np.testing.assert_allclose(old.kl_divergence(new), forward, atol=1e-5)
    np.testing.assert_allclose(new.kl_divergence(old), reverse, atol=1e-5)
    np.testing.assert_allclose(old.kl_divergence(old), 0.0, atol=1e-6)


def test_kl_divergence_adds_up_dimensions():
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
def test_policies_can_be_taken_apart_and_put_together(policy, action):
    again = networks.like(networks.parameters(policy))
    np.testing.assert_allclose(again.log_prob(action), policy.log_prob(action), rtol=1e-5)
    np.testing.assert_allclose(again.entropy(), policy.entropy(), rtol=1e-5)
    np.testing.assert_allclose(again.mode(), policy.mode(), rtol=1e-6)


def test_other_policies_are_refused_by_name():
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
def test_noise_is_new_for_each_step_environment_and_action(spec):
    noise = np.asarray(noise_of(spec))
    assert len(np.unique(noise)) > 0.99 * noise.size
    for one, other in (
        (noise[:-1], noise[1:]),
        (noise[:, :-1], noise[:, 1:]),
        (noise[..., :-1], noise[..., 1:]),
    ):
        correlation = np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1]
        assert abs(correlation) < 4 / one.size**0.5


# Actions in their box


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


def test_to_box_leaves_discrete_actions_alone():
    action = jnp.array([0, 3, 1])
    np.testing.assert_array_equal(networks.to_box(VECTOR, action), action)
    assert networks.to_box(VECTOR, action).dtype == action.dtype


def test_the_torso_of_images_is_a_convolution():
    torso = networks.ConvTorso(channels=5, hidden_sizes=(7,))
    images = jax.random.normal(jax.random.key(0), (2, 3, 10, 9, 4))
    params = torso.init(jax.random.key(1), images)["params"]
    kernel = params["conv"]["kernel"].reshape(3, 3, 4, 5)
    x = jax.lax.conv_general_dilated(
        images.reshape(6, 10, 9, 4), kernel, (1, 1), "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    x = jax.nn.relu(x + params["conv"]["bias"][None, None, None])
    dense = params["MLP_0"]["Dense_0"]
    expected = jax.nn.relu(x.reshape(2, 3, -1) @ dense["kernel"] + dense["bias"][None, None])
    np.testing.assert_allclose(torso.apply({"params": params}, images), expected, atol=1e-4)
