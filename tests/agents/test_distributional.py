"""The objectives of C51, QR-DQN and Munchausen DQN, against float64 loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.agents.c51 import C51Config, RainbowConfig, categorical_objective
from rljax.agents.munchausen import MunchausenConfig, munchausen_objective
from rljax.agents.qr_dqn import quantile_objective
from rljax.ops import td
from rljax.types import EnvSpec, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

N, A, K, GAMMA = 6, 3, 5, 0.9
RNG = np.random.default_rng(0)
# outputs of the online and the target network at s and s'
OUTPUTS = {
    name: RNG.normal(size=(N, A, K)) for name in ("online", "target", "next online", "next target")
}
ACTION, REWARD = RNG.integers(A, size=N), RNG.normal(size=N)
TERMINATED = np.array([0, 1, 0, 0, 1, 0], bool)
ROWS = np.arange(N)
# observations 0 and 1 are s and s', which index the outputs of the two networks
BATCH = Transition(
    0, jnp.asarray(ACTION), jnp.asarray(REWARD, jnp.float32), jnp.asarray(TERMINATED),
    jnp.zeros(N, bool), 1,
)  # fmt: skip


def loss_of(objective, select=lambda x: x):
    outputs = {name: jnp.asarray(select(x), jnp.float32) for name, x in OUTPUTS.items()}
    online = [outputs["online"], outputs["next online"]]
    target = [outputs["target"], outputs["next target"]]
    return objective.loss(online.__getitem__, target.__getitem__, BATCH, jnp.full(N, GAMMA))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("double", [False, True])
def test_c51_loss_is_the_cross_entropy_to_the_projected_target(double):
    atoms = np.linspace(-2.0, 3.0, K)
    bootstrap = td.select_double_action if double else td.select_max_action
    objective = categorical_objective(jnp.asarray(atoms, jnp.float32), bootstrap, EnvSpec())
    loss, divergence, value = loss_of(objective)
    p, next_p = softmax(OUTPUTS["online"])[ROWS, ACTION], softmax(OUTPUTS["next target"])
    selecting_p = softmax(OUTPUTS["next online"]) if double else next_p
    next_action = (selecting_p @ atoms).argmax(axis=1)
    target = np.zeros((N, K))
    for n, j in np.ndindex(N, K):  # algorithm 1, by floor and ceiling
        shifted = REWARD[n] + (0.0 if TERMINATED[n] else GAMMA) * atoms[j]
        b = (np.clip(shifted, -2.0, 3.0) + 2.0) / (5.0 / (K - 1))
        low, high = int(np.floor(b)), int(np.ceil(b))
        mass = next_p[n, next_action[n], j]
        if low == high:
            target[n, low] += mass
        else:
            target[n, low] += mass * (high - b)
            target[n, high] += mass * (b - low)
    np.testing.assert_allclose(loss, -(target * np.log(p)).sum(axis=1), rtol=1e-4)
    log_target = np.log(np.where(target > 0, target, 1.0))
    np.testing.assert_allclose(
        divergence, (target * (log_target - np.log(p))).sum(axis=1), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(value, p @ atoms, rtol=1e-5)


@pytest.mark.parametrize("double", [False, True])
def test_qr_dqn_loss_is_the_quantile_huber_loss_to_all_target_quantiles(double):
    bootstrap = td.select_double_action if double else td.select_max_action
    loss, td_error, value = loss_of(quantile_objective(K, 0.5, bootstrap, EnvSpec()))
    theta, next_theta = OUTPUTS["online"][ROWS, ACTION], OUTPUTS["next target"]
    selecting_theta = OUTPUTS["next online"] if double else next_theta
    next_theta = next_theta[ROWS, selecting_theta.mean(axis=-1).argmax(axis=1)]
    target = REWARD[:, None] + GAMMA * np.where(TERMINATED[:, None], 0.0, next_theta)
    expected = np.zeros(N)
    for n, i, j in np.ndindex(N, K, K):
        u, tau = target[n, j] - theta[n, i], (i + 0.5) / K
        huber = u * u / 2 if abs(u) <= 0.5 else 0.5 * (abs(u) - 0.25)
        expected[n] += abs(tau - (u < 0)) * huber / 0.5 / K
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(td_error, target.mean(axis=1) - theta.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(value, theta.mean(axis=1), rtol=1e-4)


def test_munchausen_adds_the_scaled_log_policy_and_bootstraps_from_the_soft_value():
    tau, alpha, floor = 0.3, 0.9, -0.6
    objective = munchausen_objective(tau, alpha, floor, td.squared, EnvSpec())
    loss, td_error, value = loss_of(objective, lambda x: x[..., 0])
    q, target_q, next_q = (OUTPUTS[name][..., 0] for name in ("online", "target", "next target"))
    log_policy = np.log(softmax(target_q / tau))[ROWS, ACTION]
    bonus = alpha * np.maximum(tau * log_policy, floor)
    assert 0 < (tau * log_policy < floor).sum() < N  # some are clipped, not all
    next_policy = softmax(next_q / tau)
    soft_value = (next_policy * (next_q - tau * np.log(next_policy))).sum(axis=1)
    td_target = REWARD + bonus + GAMMA * np.where(TERMINATED, 0.0, soft_value)
    np.testing.assert_allclose(td_error, td_target - q[ROWS, ACTION], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loss, 0.5 * np.square(td_error), rtol=1e-5)
    np.testing.assert_allclose(value, q[ROWS, ACTION], rtol=1e-5)


@pytest.mark.parametrize("kind", ["atoms", "quantiles", "soft"])
def test_no_gradient_flows_through_the_target(kind):
    """The loss has a gradient in the online outputs at s alone."""
    atoms = jnp.linspace(-2.0, 3.0, K)
    objective = {
        "atoms": categorical_objective(atoms, td.select_double_action, EnvSpec()),
        "quantiles": quantile_objective(K, 1.0, td.select_double_action, EnvSpec()),
        "soft": munchausen_objective(0.3, 0.9, -1.0, td.squared, EnvSpec()),
    }[kind]

    def loss(*outputs):
        q, target_q, next_q, next_target_q = (x[..., 0] if kind == "soft" else x for x in outputs)
        online, target = [q, next_q], [target_q, next_target_q]
        return objective.loss(
            online.__getitem__, target.__getitem__, BATCH, jnp.full(N, GAMMA)
        )[0].sum()  # fmt: skip

    outputs = [jnp.asarray(x, jnp.float32) for x in OUTPUTS.values()]
    gradients = jax.grad(loss, argnums=(0, 1, 2, 3))(*outputs)
    assert np.abs(gradients[0]).max() > 0
    assert all(np.abs(gradient).max() == 0 for gradient in gradients[1:])


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (C51Config, {"v_min": 3.0, "v_max": 3.0}, "`v_min` is 3.0, but it must be below"),
        (C51Config, {"num_atoms": 1}, "`num_atoms` is 1"),
        (RainbowConfig, {"learning_starts": 130}, "the first batch needs 136"),
        (MunchausenConfig, {"double": True}, "`double` is True, but Munchausen DQN"),
    ],
)
def test_impossible_options_are_rejected_in_one_sentence(config, options, message):
    with pytest.raises(ValueError) as error:
        config(**options)
    assert message in str(error.value) and "\n" not in str(error.value)
