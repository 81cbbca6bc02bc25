"""What DDPG, TD3 and both kinds of SAC share: critics, target networks, separate gradients."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_networks import (
    DISCRETE,
    SPEC,
    GaussianPolicy,
    LinearActionValues,
    LinearPolicy,
    QuadraticCritic,
    assert_trees_close,
    make_batch,
    make_config,
    replay_of,
    updates,
)
from probes import bits, box, walk
from replay_helpers import sizes_in_programs

import rljax
from rljax.agents import AGENTS, continuous
from rljax.experiment.make_plan import make_plan
from rljax.networks.continuous import Critic
from rljax.types import EnvSpec

pytestmark = pytest.mark.usefixtures("quick_compiles")

PIECES = {
    "ddpg": (SPEC, LinearPolicy(), QuadraticCritic()),
    "td3": (SPEC, LinearPolicy(), QuadraticCritic()),
    "sac": (SPEC, GaussianPolicy(), QuadraticCritic()),
    "discrete_sac": (DISCRETE, LinearPolicy(3), LinearActionValues()),
}


def options_of(name, **options):
    """Options for a policy update in every gradient step."""
    known = {field.name for field in dataclasses.fields(AGENTS[name].config)}
    options = {"noise": "gaussian", "policy_delay": 1} | options
    return {k: v for k, v in options.items() if k in known}


def states_of(name, count, pieces=None, **options):
    """The states of an agent with linear networks and a fixed batch, after each update."""
    spec, policy, critic = PIECES[name]
    config = make_config(AGENTS[name].config, **options_of(name, **options))
    arguments = {
        "policy": policy, "critic": critic, "replay": replay_of(make_batch(spec)[0]),
        "actor_optimizer": optax.sgd(0.2), "critic_optimizer": optax.sgd(0.1),
    }  # fmt: skip
    agent = AGENTS[name].make(config, spec, **arguments | (pieces or {}))
    return [state.learned for state in updates(agent, spec, count)[0]]


@pytest.mark.parametrize("name", PIECES)
def test_the_critic_loss_does_not_change_the_policy_nor_the_actor_loss_the_critic(name):
    both = states_of(name, 1)
    actor = states_of(name, 1, {"critic_optimizer": optax.set_to_zero()})
    critic = states_of(name, 1, {"actor_optimizer": optax.set_to_zero()})
    assert bits(actor[1].params.critic) == bits(both[0].params.critic)
    assert bits(actor[1].params.actor) != bits(both[0].params.actor)
    assert bits(critic[1].params.actor) == bits(both[0].params.actor)
    assert bits(critic[1].params.critic) == bits(both[1].params.critic)
    assert bits(critic[1].params.critic) != bits(both[0].params.critic)


def online(name, learned):
    """The parameters that the target network follows."""
    return learned.params if name in ("ddpg", "td3") else learned.params.critic


@pytest.mark.parametrize("name", PIECES)
def test_target_networks_move_by_tau_and_copy_exactly_at_their_interval(name):
    """Every update by tau 0.25; and with tau 1 every 12 environment steps, in even updates."""
    states = states_of(name, 2)
    for old, new in zip(states[:-1], states[1:], strict=True):
        expected = jax.tree.map(
            lambda x, y: 0.25 * x + 0.75 * y, online(name, new), old.target_params
        )
        assert_trees_close(new.target_params, expected, rtol=1e-5)
    states = states_of(name, 5, tau=1.0, target_update_interval=12)
    copied = states[0].target_params
    for update in range(1, 6):
        copied = online(name, states[update]) if update % 2 == 0 else copied
        assert bits(states[update].target_params) == bits(copied)
        assert bits(online(name, states[update])) != bits(copied) or update % 2 == 0


@pytest.mark.parametrize("interval", [6, 12, 18])
def test_the_target_of_td3_follows_its_delayed_policy(interval):
    """Due after 6, 12 or 18 steps, it moves with the next policy update, in even updates."""
    states = states_of("td3", 6, policy_delay=2, target_update_interval=interval)
    due, moved = False, []
    for update in range(1, 7):
        due |= 6 * update % interval == 0
        if bits(states[update].target_params) != bits(states[update - 1].target_params):
            assert due and update % 2 == 0
            moved.append(update)
        due &= update % 2 == 1
    assert moved == {6: [2, 4, 6], 12: [2, 4, 6], 18: [4, 6]}[interval]


def test_critics_equal_separate_networks():
    obs, action = jax.random.normal(jax.random.key(0), (2, 7, 3))
    network = Critic((5,), "tanh")
    critics = continuous.make_critics(network, 3)
    params = jax.jit(critics.init)(jax.random.key(1), obs, action)
    q = jax.jit(critics.q_values)(params, obs, action)
    assert q.shape == (3, 7)
    for k in range(3):
        separate = network.apply(jax.tree.map(lambda x, k=k: x[k], params), obs, action)
        np.testing.assert_allclose(q[k], separate, rtol=1e-5, atol=1e-6)
        assert not np.allclose(q[k], q[k - 1])  # critics start at different parameters
    np.testing.assert_allclose(critics.first_q_value(params, obs, action), q[0], rtol=1e-5)


def test_the_gradient_of_the_smallest_value_is_that_of_its_critic():
    """Of the first one where two are equal: never 0, divided or NaN."""
    q = jnp.array([[1.0, 2.0, 3.0, jnp.inf], [4.0, 2.0, -1.0, 5.0], [2.0, 3.0, 0.0, 6.0]])
    np.testing.assert_array_equal(continuous.smallest(q), np.min(q, axis=0))
    grads = jax.grad(lambda q: continuous.smallest(q).sum())(q)
    np.testing.assert_array_equal(grads, [[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])


def test_the_critic_loss_is_weighted_and_summed_over_critics():
    """Squared errors over 2: (4 x 0.5 + 0 + 1) / 2 / 3 and (0 + 9 x 1 + 0) / 2 / 3."""
    q = jnp.array([[1.0, 2.0, 3.0], [3.0, -1.0, 4.0]])
    td_target, weight = jnp.array([3.0, 2.0, 4.0]), jnp.array([0.5, 1.0, 1.0])
    loss, (td_error, metrics) = continuous.critic_loss(q, td_target, weight)
    np.testing.assert_allclose(loss, 3.0 / 6 + 9.0 / 6, rtol=1e-6)
    np.testing.assert_allclose(td_error, [1.0, 1.5, 0.5], rtol=1e-6)
    assert metrics == {"losses/q_value": 2.0, "losses/q_value_max": 4.0}


def test_correlated_noise_of_a_stochastic_policy_has_variance_1():
    """Its stationary variance is sigma^2 / (1 - (1 - theta)^2)."""
    for theta in (0.15, 0.6):
        config = SimpleNamespace(noise="ornstein_uhlenbeck", noise_theta=theta)
        noise = continuous.standard_noise(config)
        assert noise.has_memory
        sample, memory = noise.step(jnp.float32(0), jnp.float32(1))
        assert sample == memory
        np.testing.assert_allclose(sample**2 / (1 - (1 - theta) ** 2), 1.0, rtol=1e-6)
        np.testing.assert_allclose(noise.step(memory, 0.0)[0] / memory, 1 - theta, rtol=1e-6)
    gaussian = continuous.standard_noise(SimpleNamespace(noise="gaussian"))
    assert gaussian.step(None, 1.5) == (1.5, None) and not gaussian.has_memory


CONTINUOUS = [name for name, row in AGENTS.items() if row.actions == ("continuous",)]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_unbounded_and_discrete_actions_are_rejected_with_the_cure(name):
    row = AGENTS[name]
    config = row.config(**options_of(name))
    spec = EnvSpec((2,), action_shape=(2,), action_low=-1.0, env_id="Robot")
    for high, text in ((np.inf, "inf"), (np.array([1.0, np.nan]), r"\[1.0, nan\]")):
        message = f"`action_high` of Robot is {text}, but .* needs finite bounds: set `action_low`"
        with pytest.raises(ValueError, match=message):
            row.make(config, spec._replace(action_high=high))
    with pytest.raises(ValueError, match="Cliff has discrete actions, but .* use an agent such as"):
        row.make(config, EnvSpec((2,), num_actions=3, env_id="Cliff"))
    env = box(np.array([-np.inf]), np.array([1.0]), [0.0])
    message = r"box: `action_low` is \[-inf\]; set finite bounds and clip the actions to them"
    with pytest.raises(ValueError, match=message) as error:
        rljax.train(name, env, progress=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", PIECES)
def test_wrong_pieces_are_rejected_by_the_maker(name):
    spec = PIECES[name][0]
    config, make = AGENTS[name].config(**options_of(name)), AGENTS[name].make
    for argument in ("actor_optimizer", "critic_optimizer"):
        with pytest.raises(ValueError, match=f"`{argument}` is"):
            make(config, spec, **{argument: 3})
    for argument in ("policy", "critic"):
        with pytest.raises(ValueError, match=f"`{argument}` is .*, but it must be a flax linen"):
            make(config, spec, **{argument: len})
        with pytest.raises(ValueError, match=rf"`{argument}` (returns|raises) .*, but .* maps \["):
            make(config, spec, **{argument: LinearPolicy(7)})
    with pytest.raises(ValueError, match="`replay` is of type `int` without"):
        make(config, spec, replay=3)


def test_a_critic_is_no_policy():
    critic = QuadraticCritic()
    message = r"`policy` raises TypeError \(.*missing 1 required.*\), but it must be .*\[2, 2\] to"
    with pytest.raises(ValueError, match=message) as error:
        AGENTS["ddpg"].make(AGENTS["ddpg"].config(), SPEC, policy=critic)
    assert "\n" not in str(error.value)


CAPACITY, NUM_RUNS = 977, 3


@pytest.mark.parametrize(("name", "num_conds"), [("td3", 1), ("sac", 0)])
def test_the_policy_delay_is_a_cond_and_the_ring_is_not_copied_in_many_runs(name, num_conds):
    """In a program that starts with `init`, and in one that starts with the states of runs."""
    options = options_of(
        name, num_envs=2, num_steps=3, total_timesteps=600, hidden_sizes=(5,), batch_size=6,
        buffer_size=CAPACITY, learning_starts=12, prioritized=True, n_step=2, policy_delay=2,
        noise="ornstein_uhlenbeck", critic_learning_rate=[0.001, 0.01, 0.03],
    )  # fmt: skip
    plan = make_plan(name, walk(continuous=True), **options)
    for found in sizes_in_programs(plan, NUM_RUNS):
        assert [name for name, _ in found].count("cond") == num_conds
        assert max(size for _, size in found) >= NUM_RUNS * CAPACITY  # the ring is among them
        assert max(size for name, size in found if name in ("select_n", "cond")) < CAPACITY
