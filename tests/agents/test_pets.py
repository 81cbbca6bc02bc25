"""PETS: plans in an exact model of tasks whose best actions are known."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rljax
from rljax.agents.pets import PETSConfig, pets, plan_memory
from rljax.networks.ensemble import Prediction
from rljax.types import EnvSpec, RecurrentObs

pytestmark = pytest.mark.usefixtures("quick_compiles")

SMALL: dict[str, Any] = {
    "num_models": 2, "num_elites": 2, "horizon": 4, "num_candidates": 200, "num_elite_plans": 20,
    "num_iterations": 6, "num_particles": 2, "buffer_size": 50, "learning_starts": 10,
    "total_timesteps": 100,
}  # fmt: skip
CONTINUOUS = EnvSpec((1,), action_shape=(1,), action_low=-2.0, action_high=2.0, env_id="line",
                     termination=lambda obs, action, next_obs: next_obs[..., 0] < -1.0)  # fmt: skip
DISCRETE = EnvSpec((1,), num_actions=3, env_id="line",
                   termination=lambda obs, action, next_obs: next_obs[..., 0] < -1.0)  # fmt: skip


class Line(nn.Module):
    """A point on a line that moves by the action; scales are those of an untrained model, 1."""

    discrete: bool = False

    @nn.compact
    def __call__(self, inputs):
        anchor = self.param("anchor", nn.initializers.zeros, ())
        # actions are one-hot, or in [-1, 1]
        move = inputs[..., 3] - inputs[..., 1] if self.discrete else inputs[..., 1]
        mean = jnp.stack([move, jnp.zeros_like(move)], axis=-1) + anchor
        return Prediction(mean, jnp.full(mean.shape, -50.0), jnp.zeros(move.shape))


def planner(spec, reward, **options):
    config = PETSConfig(**(SMALL | options))
    agent = pets(config, spec, model=Line(bool(spec.num_actions)), reward=reward)
    state = agent.init(jax.random.key(0))

    @jax.jit
    def act(position, memory=None):
        start = plan_memory(config, spec) if memory is None else memory
        position = jnp.asarray(position, jnp.float32)[:, None]
        memory = jnp.broadcast_to(start, (position.shape[0], *start.shape[-1:]))
        return agent.greedy(state, RecurrentObs(position, memory), jax.random.key(1))

    return act


def distance_to(target):
    return lambda obs, action, next_obs: -jnp.square(next_obs[..., 0] - target)


def test_moves_to_the_target_with_continuous_actions():
    act = planner(CONTINUOUS, distance_to(3.0))
    action, memory = act([0.0, 2.5, 3.0, 5.0])
    # half of the box moves the point by half of its largest move, 1
    np.testing.assert_allclose(action[:, 0], [2.0, 1.0, 0.0, -2.0], atol=0.25)
    # the plan of the next step starts with the second action of this one
    assert memory.shape == (4, 4)
    np.testing.assert_allclose(memory[0, :2], [1.0, 1.0], atol=0.2)
    np.testing.assert_array_equal(memory[:, -1], 0.0)


def test_moves_to_the_target_with_discrete_actions():
    action, memory = planner(DISCRETE, distance_to(3.0))([0.0, 3.0, 5.0])
    assert action.tolist() == [2, 1, 0]
    first = jax.nn.softmax(memory.reshape(3, 4, 3), axis=-1)[:, 0]
    assert first[0, 2] > 0.9 and first[1, 1] > 0.9


def test_a_termination_ends_the_rewards():
    """Below -1 the episode terminates: a reward of 1 a step is worth staying alive for."""
    alive = planner(DISCRETE, lambda obs, action, next_obs: jnp.ones(obs.shape[:-1]))
    assert alive([-0.5])[0].tolist() in ([1], [2])
    harmed = planner(DISCRETE, lambda obs, action, next_obs: -jnp.ones(obs.shape[:-1]))
    assert harmed([-0.5])[0].tolist() == [0]  # to end the costs


def test_far_rewards_are_discounted():
    """One step up gives 1 now, each step down 0.45 for four steps."""

    def reward(obs, action, next_obs):
        return jnp.where(next_obs > obs, 1.0, 0.45)[..., 0] * (obs[..., 0] < 5.5)

    spec = DISCRETE._replace(termination=lambda obs, action, next_obs: next_obs[..., 0] > 5.0)
    assert planner(spec, reward, gamma=1.0)([5.0])[0].tolist() in ([0], [1])
    assert planner(spec, reward, gamma=0.1)([5.0])[0].tolist() == [2]


def test_random_actions_until_the_first_training():
    config = PETSConfig(**SMALL, num_envs=3)
    agent = pets(config, CONTINUOUS._replace(num_envs=3))
    state = agent.init(jax.random.key(0))
    memory = jnp.broadcast_to(plan_memory(config, CONTINUOUS), (3, 4))
    obs = RecurrentObs(jnp.zeros((3, 1)), memory)
    act = jax.jit(agent.act)
    actions = [act(state, obs, jax.random.key(i))[0][0] for i in range(100)]
    sample = np.array(actions)
    assert sample.min() > -2.0 and sample.max() < 2.0
    np.testing.assert_allclose(sample.std(), 4 / np.sqrt(12), rtol=0.1)


def test_an_environment_without_memory_is_refused():
    agent = pets(PETSConfig(**SMALL), CONTINUOUS)
    state = agent.init(jax.random.key(0))
    with pytest.raises(ValueError, match="carry_memory"):
        agent.greedy(state, jnp.zeros((1, 1)), jax.random.key(0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_particles": 3}, "multiple of `num_elites`"),
        ({"num_elite_plans": 300}, "`num_elite_plans` is 300"),
        ({"learning_starts": 60}, "`buffer_size` is 50"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        PETSConfig(**(SMALL | changes))


def test_several_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="several discrete actions"):
        pets(PETSConfig(**SMALL), DISCRETE._replace(num_actions=(2, 3)))


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_trains_and_evaluates_from_a_script(env_id):
    options = SMALL | {"model_hidden_sizes": (8,), "model_max_epochs": 2, "num_candidates": 20}
    run = rljax.train("pets", env_id, **options, num_seeds=2, eval_episodes=0,
                      env_params={"max_episode_steps": 15})  # fmt: skip
    trainings = 1 - np.isnan(run.metrics["losses/model_loss"]).mean()
    assert 0 < trainings < 1  # most reports are between two trainings
    assert rljax.evaluate(run, 2)["returns"].shape == (2, 2)
