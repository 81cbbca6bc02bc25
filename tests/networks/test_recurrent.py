"""Memory: the GRU against flax's, unrolling against steps, and what agents do with it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from probes import bits, walk

from rljax import AGENTS, envs
from rljax.envs import wrappers
from rljax.envs.memory import carry_memory
from rljax.envs.partial import observe_only
from rljax.networks.recurrent import GRU, Unrolled, recurrent_actor_critic_network
from rljax.training.learner import make_learner, rollout
from rljax.types import EnvSpec, RecurrentObs

pytestmark = pytest.mark.usefixtures("quick_compiles")

T, B, H = 7, 3, 4
SPEC = EnvSpec(obs_shape=(3,), num_actions=2, num_envs=B)
NETWORK = recurrent_actor_critic_network(SPEC, (5,), "tanh", "auto", "free", H)


class Once(nn.Module):
    @nn.compact
    def __call__(self, memory, x):
        gru = GRU(H, name="gru")
        return gru.step(memory, gru.gates(x))


def test_the_gru_is_flaxs():
    memory, x = (
        jax.random.normal(jax.random.key(0), (B, H)),
        jax.random.normal(jax.random.key(1), (B, 3)),
    )
    params = Once().init(jax.random.key(2), memory, x)
    ours = params["params"]["gru"]
    rest = jax.random.normal(jax.random.key(3), (3 * H + H,))
    ours = {**ours, "bias": rest[:H], "of_input": {**ours["of_input"], "bias": rest[H:]}}
    theirs = {}
    for i, gate in enumerate("rzn"):
        part = slice(i * H, (i + 1) * H)
        theirs[f"i{gate}"] = {k: v[..., part] for k, v in ours["of_input"].items()}
        theirs[f"h{gate}"] = {"kernel": ours["of_memory"][:, part]}
    theirs["hn"]["bias"] = ours["bias"]
    expected, _ = nn.GRUCell(H).apply({"params": theirs}, memory, x)
    np.testing.assert_allclose(
        Once().apply({"params": {"gru": ours}}, memory, x), expected, rtol=1e-5, atol=1e-6
    )
    for i in range(3):  # each kernel of the memory is orthogonal
        kernel = params["params"]["gru"]["of_memory"][:, i * H : (i + 1) * H]
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(H), atol=1e-5)


def sequence():
    rng = np.random.default_rng(0)
    obs, stored = rng.normal(size=(T, B, 3)), rng.normal(size=(T, B, H))
    start = rng.random((T, B)) < 0.3
    start[0] = True
    return Unrolled(*(jnp.asarray(x, jnp.float32) for x in (obs, stored)), jnp.asarray(start))


def test_unrolling_is_step_by_step_from_each_start():
    seen = sequence()
    params = NETWORK.init(jax.random.key(0), RecurrentObs(seen.obs[0], seen.memory[0]))
    policy, value = NETWORK.apply(params, seen)
    memory = seen.memory[0]
    for t in range(T):
        memory = jnp.where(seen.start[t][:, None], seen.memory[t], memory)
        step = RecurrentObs(seen.obs[t], memory)
        expected, expected_value = NETWORK.apply(params, step)
        np.testing.assert_allclose(policy.logits[t], expected.logits, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(value[t], expected_value, rtol=1e-5, atol=1e-6)
        memory = NETWORK.apply(params, step, method="remember")


def test_gradients_go_back_through_time_and_not_through_a_start():
    seen = sequence()._replace(start=jnp.zeros((T, B), bool).at[0].set(True).at[3, 1].set(True))
    params = NETWORK.init(jax.random.key(0), RecurrentObs(seen.obs[0], seen.memory[0]))
    last = jax.grad(lambda obs: NETWORK.apply(params, seen._replace(obs=obs))[1][-1].sum())(
        seen.obs
    )
    felt = np.abs(last).sum(axis=-1) > 1e-9
    assert felt[:, 0].all() and felt[3:, 1].all() and not felt[:3, 1].any()


def test_the_wrapper_keeps_a_memory_for_as_long_as_an_episode():
    initial = jnp.full(H, 0.5)
    env = carry_memory(walk(), initial)
    state, obs = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(obs.memory, initial)
    step, ends = jax.jit(env.step), 0
    for t in range(30):
        memory = jnp.full(H, float(t + 1))
        state, seen = step(state, (jnp.int32(1), memory), jax.random.key(t))
        done = bool(seen.terminated | seen.truncated)
        np.testing.assert_array_equal(seen.next_obs.memory, memory)  # as it was before the reset
        np.testing.assert_array_equal(seen.obs.memory, initial if done else memory)
        np.testing.assert_array_equal(state.memory, seen.obs.memory)
        ends += done
    assert ends > 3
    assert wrappers.innermost(state) is state.env


def recurrent(name, **options):
    row = AGENTS[name]
    options = {"memory": "gru", "memory_size": H, "hidden_sizes": (5,), "num_envs": B} | options
    config = row.config(num_steps=T, total_timesteps=T * B * 8, **options)
    env = wrappers.batched(row.wrap(config, walk(options.pop("continuous", False))), B)
    return config, env, row.make


def test_the_ratio_of_the_first_minibatch_is_one():
    """What is unrolled to learn is what was remembered to act, across the ends of episodes."""
    config, env, make = recurrent(
        "ppo", update_epochs=1, num_minibatches=1, clip_eps=1e-5, normalize_obs=True
    )
    learner = make_learner(make(config, env.spec), env, T)
    state = jax.jit(learner.init)(jax.random.key(0))
    step = jax.jit(learner.step)
    for _ in range(4):
        state, metrics = step(state)
        assert metrics["losses/clip_fraction"] == 0 and abs(metrics["losses/kl"]) < 1e-7
    assert float(state.agent.obs.num_samples) == 4 * T * B
    assert state.agent.obs.mean.shape == (3,)


@pytest.mark.parametrize("name", ["ppo", "a2c", "a3c", "dppo"])
def test_everything_of_a_recurrent_agent_learns(name):
    extra = (
        {"update_epochs": 2, "num_minibatches": 3}
        if name in ("ppo", "dppo")
        else {"pull_period": 1}
    )
    extra = {} if name == "a2c" else extra
    config, env, make = recurrent(name, ent_coef=0.01, **extra)
    agent = make(config, env.spec)
    learner = make_learner(agent, env, T)
    state = jax.jit(learner.init)(jax.random.key(0))
    after, _ = jax.jit(learner.step)(state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    before = jax.tree.leaves(state.agent.params)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(after.agent.params), before, strict=True
    ):
        assert not np.array_equal(x, y), jax.tree_util.keystr(path)
    action, memory = agent.greedy(after.agent, after.obs, jax.random.key(0))
    assert action.shape == (B,) and memory.shape == (B, H)


def test_what_is_learned_from_are_whole_sequences():
    config, env, make = recurrent("ppo", num_minibatches=1)
    agent = make(config, env.spec)

    @jax.jit
    def play(key):
        env_state, obs = env.reset(key)
        return rollout(env, agent, agent.init(key), env_state, obs, key, T)[2]

    trajectory = play(jax.random.key(1))
    seen = recurrent.to_learn(NETWORK, trajectory)
    num_rows, take = recurrent.rows_of(NETWORK, (seen, trajectory.reward))
    part, reward = take(jnp.array([2, 0]))
    assert num_rows == B and reward.shape == (T, 2) and part.memory.shape == (T, 2, H)
    np.testing.assert_array_equal(part.obs[:, 1], trajectory.obs.obs[:, 0])
    done = trajectory.terminated | trajectory.truncated
    assert seen.start[0].all() and done[:-1].any()
    np.testing.assert_array_equal(seen.start[1:], done[:-1])


def test_minibatches_are_made_of_sequences():
    config, *_ = recurrent("ppo", num_minibatches=3)
    with pytest.raises(ValueError, match=r"`num_minibatches` is 2, .* num_envs = 3"):
        dataclasses.replace(config, num_minibatches=2, num_steps=8)


def test_a_masked_environment_hides_the_rest():
    env, plain = envs.make("partial/CartPole-v1"), envs.make("CartPole-v1")
    assert env.spec.obs_shape == (2,) and env.spec.max_episode_steps == 500

    @jax.jit
    def play(key):
        places, seen = zip(*(each.reset(key) for each in (env, plain)), strict=True)

        def once(places, t):
            key, action = jax.random.fold_in(key_of_steps, t), jnp.where(t % 3 == 0, 1, 0)
            moved = [
                each.step(place, action, key)
                for each, place in zip((env, plain), places, strict=True)
            ]
            return tuple(place for place, _ in moved), [step for _, step in moved]

        key_of_steps = jax.random.fold_in(key, 1)
        return seen, jax.lax.scan(once, places, jnp.arange(40))[1]

    seen, (step, whole) = play(jax.random.key(0))
    keep = jnp.array([0, 2])
    assert bool(step.terminated.any())
    np.testing.assert_array_equal(seen[0], seen[1][keep])
    np.testing.assert_array_equal(step.obs, whole.obs[:, keep])
    np.testing.assert_array_equal(step.next_obs, whole.next_obs[:, keep])
    assert bits((step.reward, step.terminated)) == bits((whole.reward, whole.terminated))
    with pytest.raises(ValueError, match=r"`keep` is \(0, 9\), .* from 0 to 3"):
        observe_only(plain, (0, 9))
    with pytest.raises(ValueError, match="needs a vector"):
        observe_only(plain._replace(spec=plain.spec._replace(obs_shape=(3, 3, 1))), (0,))


def test_parameters_do_not_depend_on_the_batch():
    sizes = [
        ravel_pytree(NETWORK.init(jax.random.key(0), recurrent.example(NETWORK, spec)))[0]
        for spec in (SPEC, SPEC._replace(num_envs=1))
    ]
    np.testing.assert_array_equal(*sizes)
