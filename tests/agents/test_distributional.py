"""C51, QR-DQN and Munchausen DQN: what each makes of a batch, against float64 loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.agents.c51 import C51Config, RainbowConfig, categorical_objective
from rljax.agents.munchausen import MunchausenConfig, munchausen_objective
from rljax.agents.qr_dqn import quantile_objective
from rljax.ops import td
from rljax.types import Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

N, A, K, GAMMA = 6, 3, 5, 0.9
RNG = np.random.default_rng(0)
OUTPUTS = {name: RNG.normal(size=(N, A, K)) for name in ("now", "target now", "next", "target")}
ACTION, REWARD = RNG.integers(A, size=N), RNG.normal(size=N)
TERMINATED = np.array([0, 1, 0, 0, 1, 0], bool)
ROWS = np.arange(N)
# observations 0 and 1 stand for s and s': the two networks look their outputs up
BATCH = Transition(
    0, jnp.asarray(ACTION), jnp.asarray(REWARD, jnp.float32), jnp.asarray(TERMINATED),
    jnp.zeros(N, bool), 1,
)  # fmt: skip


def errors_of(objective, pick=lambda x: x):
    outputs = {name: jnp.asarray(pick(x), jnp.float32) for name, x in OUTPUTS.items()}
    online = [outputs["now"], outputs["next"]]
    target = [outputs["target now"], outputs["target"]]
    return objective.errors(online.__getitem__, target.__getitem__, BATCH, jnp.full(N, GAMMA))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("double", [False, True])
def test_c51_moves_to_the_projected_target(double):
    atoms = np.linspace(-2.0, 3.0, K)
    bootstrap = td.select_double_action if double else td.select_max_action
    objective = categorical_objective(jnp.asarray(atoms, jnp.float32), bootstrap)
    loss, divergence, value = errors_of(objective)
    p, beyond = softmax(OUTPUTS["now"])[ROWS, ACTION], softmax(OUTPUTS["target"])
    best = ((softmax(OUTPUTS["next"]) if double else beyond) @ atoms).argmax(axis=1)
    goal = np.zeros((N, K))
    for n, j in np.ndindex(N, K):  # algorithm 1, by floor and ceiling
        moved = REWARD[n] + (0.0 if TERMINATED[n] else GAMMA) * atoms[j]
        b = (np.clip(moved, -2.0, 3.0) + 2.0) / (5.0 / (K - 1))
        low, high = int(np.floor(b)), int(np.ceil(b))
        mass = beyond[n, best[n], j]
        if low == high:
            goal[n, low] += mass
        else:
            goal[n, low] += mass * (high - b)
            goal[n, high] += mass * (b - low)
    np.testing.assert_allclose(loss, -(goal * np.log(p)).sum(axis=1), rtol=1e-4)
    log_goal = np.log(np.where(goal > 0, goal, 1.0))
    np.testing.assert_allclose(
        divergence, (goal * (log_goal - np.log(p))).sum(axis=1), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(value, p @ atoms, rtol=1e-5)


@pytest.mark.parametrize("double", [False, True])
def test_qr_dqn_moves_quantiles_to_all_of_the_target(double):
    bootstrap = td.select_double_action if double else td.select_max_action
    loss, td_error, value = errors_of(quantile_objective(K, 0.5, bootstrap))
    theta, beyond = OUTPUTS["now"][ROWS, ACTION], OUTPUTS["target"]
    best = (OUTPUTS["next"] if double else beyond).mean(axis=-1).argmax(axis=1)
    goal = REWARD[:, None] + GAMMA * np.where(TERMINATED[:, None], 0.0, beyond[ROWS, best])
    expected = np.zeros(N)
    for n, i, j in np.ndindex(N, K, K):
        u, tau = goal[n, j] - theta[n, i], (i + 0.5) / K
        huber = u * u / 2 if abs(u) <= 0.5 else 0.5 * (abs(u) - 0.25)
        expected[n] += abs(tau - (u < 0)) * huber / 0.5 / K
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(td_error, goal.mean(axis=1) - theta.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(value, theta.mean(axis=1), rtol=1e-4)


def test_munchausen_adds_its_log_policy_and_bootstraps_softly():
    tau, alpha, least = 0.3, 0.9, -0.6
    objective = munchausen_objective(tau, alpha, least, td.squared)
    loss, td_error, value = errors_of(objective, lambda x: x[..., 0])
    now, before, beyond = (OUTPUTS[name][..., 0] for name in ("now", "target now", "target"))
    log_policy = np.log(softmax(before / tau))[ROWS, ACTION]
    bonus = alpha * np.maximum(tau * log_policy, least)
    assert 0 < (tau * log_policy < least).sum() < N  # the bound is at work, and not for all
    policy = softmax(beyond / tau)
    soft = (policy * (beyond - tau * np.log(policy))).sum(axis=1)
    goal = REWARD + bonus + GAMMA * np.where(TERMINATED, 0.0, soft)
    np.testing.assert_allclose(td_error, goal - now[ROWS, ACTION], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loss, 0.5 * np.square(td_error), rtol=1e-5)
    np.testing.assert_allclose(value, now[ROWS, ACTION], rtol=1e-5)


@pytest.mark.parametrize("kind", ["atoms", "quantiles", "soft"])
def test_no_gradient_goes_through_the_target(kind):
    """K18: the loss moves the outputs at s alone."""
    atoms = jnp.linspace(-2.0, 3.0, K)
    objective = {
        "atoms": categorical_objective(atoms, td.select_double_action),
        "quantiles": quantile_objective(K, 1.0, td.select_double_action),
        "soft": munchausen_objective(0.3, 0.9, -1.0, td.squared),
    }[kind]

    def loss(*outputs):
        now, target_now, beyond, target = (x[..., 0] if kind == "soft" else x for x in outputs)
        online, fixed = [now, beyond], [target_now, target]
        return objective.errors(
            online.__getitem__, fixed.__getitem__, BATCH, jnp.full(N, GAMMA)
        )[0].sum()  # fmt: skip

    outputs = [jnp.asarray(x, jnp.float32) for x in OUTPUTS.values()]
    slopes = jax.grad(loss, argnums=(0, 1, 2, 3))(*outputs)
    assert np.abs(slopes[0]).max() > 0
    assert all(np.abs(slope).max() == 0 for slope in slopes[1:])


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (C51Config, {"v_min": 3.0, "v_max": 3.0}, "`v_min` is 3.0, but it must be below"),
        (C51Config, {"num_atoms": 1}, "`num_atoms` is 1"),
        (RainbowConfig, {"learning_starts": 130}, "the first batch needs 136"),
        (MunchausenConfig, {"n_step": 2}, "`n_step` is 2, but munchausen"),
        (MunchausenConfig, {"double": True}, "`double` is True, but munchausen"),
    ],
)
def test_bad_options_are_told_in_one_sentence(config, options, message):
    with pytest.raises(ValueError) as error:
        config(**options)
    assert message in str(error.value) and "\n" not in str(error.value)
