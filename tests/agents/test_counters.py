"""Counters on the device are int32: a run that would exceed them is refused, by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import circle, walk, with_memory

import rljax
from rljax.agents import AGENTS
from rljax.config.run import MAX_COUNT, MAX_STEPS
from rljax.envs import wrappers
from rljax.training.learner import make_learner
from rljax.types import Shared

pytestmark = pytest.mark.usefixtures("quick_compiles")


def largest(name, **options):
    """The largest `total_timesteps` of an agent, which its refusal names."""
    with pytest.raises(ValueError) as error:
        AGENTS[name].config(total_timesteps=MAX_STEPS, **options)
    message = str(error.value)
    assert message.startswith(f"`total_timesteps` is {MAX_STEPS}, ") and "\n" not in message
    return int(message.removesuffix(" or less.").rpartition(" ")[2])


@pytest.mark.parametrize("name", AGENTS)
def test_the_longest_run_is_named_and_one_more_update_is_refused(name):
    config = AGENTS[name].config(total_timesteps=largest(name))
    assert max(config.counts().values()) <= MAX_COUNT
    rollout = config.num_envs * config.num_steps
    more = config.total_timesteps + max(rollout, getattr(config, "train_frequency", 1))
    with pytest.raises(ValueError, match=rf"`total_timesteps` is {more}, which makes \d+ "):
        AGENTS[name].config(total_timesteps=more)


@pytest.mark.parametrize("steps", [MAX_STEPS + 1, 10**30])
@pytest.mark.parametrize("name", ["q_learning", "a2c", "pqn"])
def test_more_steps_than_a_float_counts_are_refused(name, steps):
    with pytest.raises(ValueError, match=rf"^`total_timesteps` is {steps}, "):
        AGENTS[name].config(total_timesteps=steps, num_envs=2**20)


def test_several_devices_and_resumed_runs_are_refused_alike(tmp_path):
    options = {"total_timesteps": 5_000_000_000, "progress": False}
    with pytest.raises(ValueError, match="makes 5000000000 environment steps"):
        rljax.train("dqn", "CartPole-v1", devices=4, **options)
    (tmp_path / "config.toml").write_text(
        'agent = "pqn"\nenv_id = "CartPole-v1"\ntotal_timesteps = 5_000_000_000\n'
    )
    with pytest.raises(ValueError, match="makes 5000000000 environment steps"):
        rljax.resume(tmp_path)


@pytest.mark.parametrize(
    "name", ["dyna_q_plus", "dqn", "pqn", "sac", "mbpo", "muzero", "ppo", "reinforce"]
)
def test_the_longest_run_can_be_traced(name):
    """No step count is too large for a number of the program."""
    row, options = AGENTS[name], {"num_envs": 2, "num_steps": 8}
    config = row.config(total_timesteps=largest(name, **options), **options)
    env = circle() if row.tabular else walk(continuous="discrete" not in row.actions)
    env = wrappers.batched(with_memory(row, config, env), 2)
    learner = make_learner(row.make(config, env.spec), env, 8)
    state = jax.eval_shape(learner.init, jax.random.key(0))
    assert jax.eval_shape(learner.step, state)[0].num_updates.dtype == jnp.int32


@pytest.mark.parametrize("name", ["dqn", "pqn"])
def test_the_last_update_of_the_longest_run_is_exact(name):
    """Epsilon is the final one, gradient steps are taken, and no counter is negative."""
    options = {"num_envs": 2, "num_steps": 8, "hidden_sizes": (4,), "eps_end": 0.05}
    if name == "dqn":
        options |= {"learning_starts": 16, "batch_size": 8, "buffer_size": 32}
    row, config = AGENTS[name], AGENTS[name].config(**options)
    config = row.config(total_timesteps=largest(name, **options), **options)
    env = wrappers.batched(walk(), 2)
    agent = row.make(config, env.spec)
    learner = make_learner(agent, env, 8)
    last = jnp.int32(config.num_updates * 16 - 16)

    @jax.jit
    def last_update(key):
        state = learner.init(key)
        warm = learner.step(state)[0].agent  # fills the replay buffer
        state = state._replace(agent=warm._replace(env_steps=Shared(last)))
        return state.agent.params, learner.step(state)[0].agent

    before, after = last_update(jax.random.key(0))
    assert int(after.env_steps.value) == int(last) + 16
    changes = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), before, after.params)
    assert max(jax.tree.leaves(changes)) > 0
    # a uniform number of 0.06 is above the final epsilon of 0.05
    obs, order = jnp.zeros((2, *env.spec.obs_shape)), jnp.eye(env.spec.num_actions)
    for row in order:
        noise = jnp.tile(jnp.concatenate([jnp.array([0.06]), row])[None], (2, 1)), None
        action, _ = agent.act(after, obs, noise)
        np.testing.assert_array_equal(action, agent.greedy(after, obs, jax.random.key(0)))
