"""Networks of continuous control: squashed samples and their log-probabilities, shapes, checks."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rljax.networks import continuous
from rljax.networks.continuous import Critic, DeterministicPolicy, SquashedGaussianPolicy
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

VECTOR = EnvSpec(obs_shape=(3,), action_shape=(2,))
SPECS = {
    "vector": VECTOR,
    "matrix": EnvSpec(obs_shape=(2, 3), action_shape=(2,)),
    "numbered": EnvSpec(obs_shape=(), num_states=6, action_shape=(2,)),
    "matrix of actions": EnvSpec(obs_shape=(3,), action_shape=(2, 2)),
}
CONFIG = SimpleNamespace(hidden_sizes=(8, 5), activation="tanh")


def float64_log_prob(u, mean, std):
    """The log-probability of tanh(u), `[..., A] -> [...]`; 1 - tanh(u)^2 = 1 / cosh(u)^2."""
    u, mean, std = (np.asarray(x, np.float64) for x in (u, mean, std))
    return (stats.norm(mean, std).logpdf(u) + 2.0 * np.log(np.cosh(u))).sum(axis=-1)


def sample_at(u, mean, std):
    """The action and the log-probability of the pre-squash value u, `[N, A]` each."""
    mean, std = jnp.broadcast_to(mean, u.shape), jnp.broadcast_to(std, u.shape)
    return continuous.squashed_sample(mean, jnp.log(std), (u - mean) / std)


@pytest.mark.parametrize(
    ("u", "expected"),
    [(0.8, -0.144284), (20.0, -776.18 - 0.225791 + 38.613706), (-20.0, -785.792085)],
)
def test_log_probabilities_computed_by_hand(u, expected):
    """Mean 0.3 and standard deviation 0.5; log 1/cosh(20)^2 is -38.613706, not log 1e-6."""
    action, log_prob = sample_at(jnp.array([u]), 0.3, 0.5)
    np.testing.assert_allclose(action, [np.tanh(u)], rtol=1e-6)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)


def test_log_probabilities_equal_scipy_for_pre_squash_values_up_to_20():
    """In one dimension and in three, with means near u and far from it."""
    rng = np.random.default_rng(0)
    for size in (1, 3):
        u = np.concatenate([np.linspace(-20, 20, 401), rng.uniform(-20, 20, 599)])
        u = np.stack([rng.permutation(u) for _ in range(size)], axis=-1)
        std = np.exp(rng.uniform(-2, 2, u.shape)).astype(np.float32)
        for mean in (u + std * rng.normal(size=u.shape), rng.uniform(-1, 1, u.shape)):
            mean = np.asarray(mean, np.float32)
            noise = np.asarray((u - mean) / std, np.float32)
            action, log_prob = continuous.squashed_sample(mean, jnp.log(std), noise)
            exact_std = np.exp(np.asarray(jnp.log(std), np.float64))
            exact_u = np.float64(mean) + exact_std * np.float64(noise)
            expected = float64_log_prob(exact_u, mean, exact_std)
            np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(action, np.tanh(exact_u), rtol=1e-5, atol=1e-6)
            assert np.abs(expected).max() > 38


def test_the_density_of_actions_integrates_to_1():
    """Of tanh(u), over the actions in (-1, 1): a wrong sign of the correction gives another sum."""
    edges = jnp.arctanh(jnp.linspace(-0.9999, 0.9999, 4001))
    _, log_prob = sample_at(edges[:, None], 0.2, 0.4)
    np.testing.assert_allclose(np.trapezoid(np.exp(log_prob), np.tanh(edges)), 1.0, rtol=1e-4)


def test_gradients_of_the_log_probability_are_finite_and_exact():
    """d/d mean is 2 tanh(u) and d/d log std is 2 tanh(u) std noise - 1, for fixed noise."""
    mean = jnp.array([-1000.0, -20.0, -9.0, -0.5, 0.0, 3.0, 20.0, 1000.0])[:, None]
    log_std, noise = jnp.full_like(mean, -0.5), jnp.full_like(mean, 1.5)

    def total(mean, log_std):
        return continuous.squashed_sample(mean, log_std, noise)[1].sum()

    by_mean, by_log_std = jax.jit(jax.grad(total, (0, 1)))(mean, log_std)
    step = np.exp(-0.5) * 1.5
    slope = 2.0 * np.tanh(np.float64(mean) + step)
    np.testing.assert_allclose(by_mean, slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_log_std, slope * step - 1.0, rtol=1e-5, atol=1e-6)


def test_samples_have_the_distribution_of_the_squashed_gaussian():
    noise = jax.random.normal(jax.random.key(0), (20_000, 1))
    action, _ = continuous.squashed_sample(jnp.full((20_000, 1), 0.3), jnp.log(0.5), noise)
    u = np.arctanh(np.asarray(action, np.float64)[:, 0])
    assert stats.kstest(u, stats.norm(0.3, 0.5).cdf).pvalue > 1e-3


def obs_like(spec, *leading):
    dtype = jnp.int32 if spec.num_states else jnp.float32
    return jnp.ones((*leading, *spec.obs_shape), dtype)


@pytest.mark.parametrize("kind", SPECS)
def test_shapes(kind):
    spec = SPECS[kind]
    size = int(np.prod(spec.action_shape))
    assert continuous.action_size(spec) == size
    networks = {
        "policy": continuous.deterministic_policy(None, CONFIG, spec),
        "gaussian": continuous.squashed_gaussian_policy(None, CONFIG, spec),
        "critic": continuous.critic_network(None, CONFIG, spec),
    }
    for leading in ((3,), (2, 3)):
        obs, action = obs_like(spec, *leading), jnp.zeros((*leading, size))
        inputs = {"policy": (obs,), "gaussian": (obs,), "critic": (obs, action)}

        def outputs(key, inputs=inputs):
            return {
                name: network.init_with_output(key, *inputs[name])[0]
                for name, network in networks.items()
            }

        shapes = jax.tree.map(lambda x: x.shape, jax.eval_shape(outputs, jax.random.key(0)))
        assert shapes == {
            "policy": (*leading, size), "gaussian": ((*leading, size),) * 2, "critic": leading,
        }  # fmt: skip


def test_policies_are_near_0_at_first_and_always_in_the_unit_box():
    """The last layer is small; saturated outputs are exactly -1 or 1, and no more."""
    obs = 10.0 * jax.random.normal(jax.random.key(1), (50, 3))
    policy = DeterministicPolicy(2, (8, 5))
    params = jax.jit(policy.init)(jax.random.key(0), obs)
    assert np.abs(policy.apply(params, obs)).max() < 0.5
    large = jax.tree.map(lambda x: 1e4 * x, params)
    action = policy.apply(large, obs)
    assert np.abs(action).max() == 1.0

    gaussian = SquashedGaussianPolicy(2, (8, 5))
    params = jax.jit(gaussian.init)(jax.random.key(0), obs)
    mean, log_std = gaussian.apply(params, obs)
    assert np.abs(mean).max() < 0.5 and np.abs(log_std).max() < 0.5
    mean, log_std = gaussian.apply(jax.tree.map(lambda x: 1e4 * x, params), obs)
    assert log_std.min() == -20.0 and log_std.max() == 2.0 and np.abs(mean).max() > 1e3
    action, log_prob = continuous.squashed_sample(mean, log_std, jnp.ones_like(mean))
    assert np.abs(action).max() == 1.0 and np.isfinite(log_prob).all()


def test_the_critic_depends_on_observations_and_on_actions():
    obs, action = jnp.ones((1, 3)), jnp.zeros((1, 2))
    critic = Critic((8, 5), "tanh")
    params = jax.jit(critic.init)(jax.random.key(0), obs, action)
    q_value = critic.apply(params, obs, action)
    assert not np.allclose(critic.apply(params, obs + 1.0, action), q_value)
    assert not np.allclose(critic.apply(params, obs, action.at[0, 1].set(1.0)), q_value)


class Linear(nn.Module):
    """A network with `size` outputs, or with a pair of outputs of that size."""

    size: int
    pair: bool = False

    @nn.compact
    def __call__(self, obs, action=None):
        out = nn.Dense(self.size)(obs)
        return (out, out) if self.pair else out


WRONG_NETWORKS = {
    "deterministic policy of 3 actions": (
        continuous.deterministic_policy, Linear(3),
        r"`policy` returns \[2, 3\], but it must be a flax linen module that maps "
        r"\[2, 3\] to \[2, 2\]",
    ),
    "deterministic policy with a pair": (
        continuous.deterministic_policy, Linear(2, pair=True),
        r"`policy` returns \(\[2, 2\], \[2, 2\]\), but .* to \[2, 2\]",
    ),
    "Gaussian policy without standard deviation": (
        continuous.squashed_gaussian_policy, Linear(2),
        r"`policy` returns \[2, 2\], but .* to \(\[2, 2\], \[2, 2\]\)",
    ),
    "Gaussian policy of 1 action": (
        continuous.squashed_gaussian_policy, Linear(1, pair=True),
        r"`policy` returns \(\[2, 1\], \[2, 1\]\), but .* to \(\[2, 2\], \[2, 2\]\)",
    ),
    "critic with an axis too many": (
        continuous.critic_network, Linear(1),
        r"`critic` returns \[2, 1\], but .* maps \[2, 3\], \[2, 2\] to \[2\]",
    ),
    "function": (
        continuous.critic_network, jnp.sum, "`critic` is the function .*sum.*, but it must be a "
        "flax linen module",
    ),
    "class": (
        continuous.deterministic_policy, Linear,
        "`policy` is the class `Linear`, but it must be",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_NETWORKS)
def test_errors_name_the_argument_and_both_shapes(kind):
    make, network, message = WRONG_NETWORKS[kind]
    with pytest.raises(ValueError, match=message) as error:
        make(network, CONFIG, VECTOR)
    assert "\n" not in str(error.value)


def test_fitting_networks_are_returned_unchanged():
    policy, gaussian, critic = Linear(2), Linear(2, pair=True), Critic((3,))
    assert continuous.deterministic_policy(policy, CONFIG, VECTOR) is policy
    assert continuous.squashed_gaussian_policy(gaussian, CONFIG, VECTOR) is gaussian
    assert continuous.critic_network(critic, CONFIG, VECTOR) is critic
