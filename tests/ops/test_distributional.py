"""The categorical projection and the losses against worked examples, rlax and numpy."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.ops import distributional

pytestmark = pytest.mark.usefixtures("quick_compiles")

SUPPORT = jnp.array([-10.0, -5.0, 0.0, 5.0, 10.0])
P = jnp.array([[0.1, 0.2, 0.4, 0.2, 0.1]])


@pytest.fixture(scope="module")
def rlax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports use deprecated names
        return pytest.importorskip("rlax")


def project(reward, discount, probabilities=P, support=SUPPORT):
    reward, discount = (jnp.full(len(probabilities), x, jnp.float32) for x in (reward, discount))
    return distributional.categorical_projection(probabilities, reward, discount, support)


@pytest.mark.parametrize(
    ("reward", "discount", "expected"),
    [
        (1.0, 0.9, (0.06, 0.18, 0.38, 0.26, 0.12)),
        (1.0, 0.0, (0.0, 0.0, 0.8, 0.2, 0.0)),  # a terminal state
        (5.0, 0.0, (0.0, 0.0, 0.0, 1.0, 0.0)),  # exactly on an atom, where floor = ceiling
        (0.0, 1.0, (0.1, 0.2, 0.4, 0.2, 0.1)),
        (100.0, 0.9, (0.0, 0.0, 0.0, 0.0, 1.0)),  # above the last atom
        (-1e15, 0.9, (1.0, 0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_projection_of_worked_examples(reward, discount, expected):
    np.testing.assert_allclose(project(reward, discount)[0], expected, atol=1e-6)


def test_projection_equals_that_of_rlax_and_keeps_mass_and_mean(rlax):
    rng = np.random.default_rng(0)
    support = jnp.linspace(-3.0, 7.0, 21)
    p = jnp.asarray(rng.dirichlet(np.ones(21), size=32), jnp.float32)
    reward, discount = jnp.asarray(rng.normal(size=32), "f4"), jnp.asarray(rng.random(32), "f4")
    m = distributional.categorical_projection(p, reward, discount, support)
    shifted = reward[:, None] + discount[:, None] * support[None]
    expected = jax.vmap(rlax.categorical_l2_project, (0, 0, None))(shifted, p, support)
    np.testing.assert_allclose(m, expected, atol=1e-5)
    np.testing.assert_allclose(m.sum(axis=-1), 1.0, atol=1e-5)
    mean = (jnp.clip(shifted, -3.0, 7.0) * p).sum(axis=-1)
    np.testing.assert_allclose((m * support[None]).sum(axis=-1), mean, atol=1e-4)


def test_categorical_loss_is_the_cross_entropy():
    rng = np.random.default_rng(1)
    logits, target = rng.normal(size=(4, 6)), rng.dirichlet(np.ones(6), size=4)
    expected = -(target * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1)
    loss = distributional.categorical_loss(jnp.asarray(logits, "f4"), jnp.asarray(target, "f4"))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_quantile_loss_of_a_worked_example():
    """Quantiles (0, 1, 2), targets (1, 3), kappa 1: a sum over quantiles."""
    midpoints = distributional.quantile_midpoints(3)
    np.testing.assert_allclose(midpoints, [1 / 6, 1 / 2, 5 / 6], rtol=1e-6)
    loss = distributional.quantile_huber_loss(
        jnp.array([[0.0, 1.0, 2.0]]), jnp.array([[1.0, 3.0]]), midpoints
    )
    np.testing.assert_allclose(loss, [0.875], rtol=1e-6)


@pytest.mark.parametrize("kappa", [0.0, 0.4, 1.0])
def test_quantile_loss_equals_a_float64_loop(kappa):
    rng = np.random.default_rng(2)
    theta, target, tau = (
        rng.normal(size=(5, 4)),
        2 * rng.normal(size=(5, 3)),
        np.arange(0.125, 1, 0.25),
    )
    expected = np.zeros(5)
    for n, i, j in np.ndindex(5, 4, 3):
        u = target[n, j] - theta[n, i]
        huber = abs(u) if kappa == 0 else (
            u * u / 2 / kappa if abs(u) <= kappa else abs(u) - kappa / 2
        )  # fmt: skip
        expected[n] += abs(tau[i] - (u < 0)) * huber / 3
    args = (jnp.asarray(x, jnp.float32) for x in (theta, target, tau))
    loss = distributional.quantile_huber_loss(*args, kappa)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_quantile_loss_equals_that_of_rlax(rlax):
    rng = np.random.default_rng(3)
    theta, target = (jnp.asarray(x, jnp.float32) for x in rng.normal(size=(2, 7)))
    tau = distributional.quantile_midpoints(7)
    ours = distributional.quantile_huber_loss(theta[None], target[None], tau)[0]
    theirs = rlax.quantile_regression_loss(theta, tau, target, huber_param=1.0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_quantile_regression_finds_quantiles():
    """The loss is smallest at the quantiles of the targets at the midpoints."""
    samples = jnp.asarray(np.random.default_rng(4).exponential(size=(1, 2001)), jnp.float32)
    tau = distributional.quantile_midpoints(5)

    def step(theta, rate):
        gradient = jax.grad(
            lambda x: distributional.quantile_huber_loss(x, samples, tau, 0.0).sum()
        )
        return theta - rate * gradient(theta), None

    theta, _ = jax.lax.scan(step, jnp.zeros((1, 5)), jnp.linspace(1.0, 0.01, 400))
    np.testing.assert_allclose(theta[0], np.quantile(samples, tau), atol=0.02)


@pytest.mark.parametrize(
    "call",
    [
        lambda: project(1.0, 0.9, P[0]),
        lambda: project(1.0, 0.9, P[:, :4]),
        lambda: project(1.0, 0.9, P.astype(jnp.int32)),
        lambda: distributional.categorical_loss(jnp.zeros((2, 3)), jnp.zeros((2, 4))),
        lambda: distributional.quantile_huber_loss(
            jnp.zeros((2, 3)), jnp.zeros((2, 4)), jnp.zeros(4)
        ),
    ],
)
def test_wrong_shapes_and_dtypes_are_rejected(call):
    with pytest.raises(AssertionError):
        call()
