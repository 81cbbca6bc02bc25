"""Value iteration and policy iteration as agents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rljax
from rljax import envs
from rljax.agents.tabular import dynamic_programming
from rljax.envs import worlds
from rljax.ops import planning
from rljax.training.learner import make_learner, train

pytestmark = pytest.mark.usefixtures("quick_compiles")
MAKERS = {
    "value": dynamic_programming.value_iteration,
    "policy": dynamic_programming.policy_iteration,
}


def run(name, kind, num_updates, **options):
    env = envs.build(f"rljax/{name}", 2)
    config = dynamic_programming.PlanningConfig(num_envs=2, num_steps=8, **options)
    agent = MAKERS[kind](config, env.spec)
    call = jax.jit(lambda key: train(make_learner(agent, env, 8), key, num_updates, num_updates))
    return agent, env, *call(jax.random.key(0))


def test_an_update_is_one_sweep():
    model = worlds.model("Maze")
    q = np.zeros((16, 4))
    transition = model.transition * (1 - model.terminated)
    for count in range(1, 4):
        new = model.reward + 0.9 * transition @ q.max(axis=1)
        residual = np.abs(new - q).max()
        q = new
        _, _, state, metrics = run("Maze", "value", count, gamma=0.9)
        np.testing.assert_allclose(state.agent.params, q, atol=1e-6)
        np.testing.assert_allclose(metrics["losses/bellman_residual"][-1], residual, atol=1e-6)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("name", "gamma", "epsilon"), [("Maze", 0.9, 0.0), ("CliffWalking", 1.0, 0.1)]
)
def test_converges_to_the_solution_of_the_model(kind, name, gamma, epsilon):
    num_updates = {"policy": 8, "value": 200}[kind]
    agent, _, state, _ = run(name, kind, num_updates, gamma=gamma, epsilon=epsilon)
    best = planning.policy_iteration(worlds.model(name), gamma, epsilon)
    np.testing.assert_allclose(state.agent.params, best.q, rtol=1e-4, atol=1e-4)
    not_terminal = state.agent.params.max(axis=1) != state.agent.params.min(axis=1)
    action = agent.greedy(state.agent, jnp.arange(len(best.value)), jax.random.key(0))
    q = np.asarray(best.q)
    chosen = q[np.arange(len(q)), action]
    assert (np.abs(chosen - q.max(axis=1)) < 1e-3)[not_terminal].all()


def test_acts_epsilon_greedily():
    agent, env, state, _ = run("CliffWalking", "value", 100, gamma=1.0, epsilon=0.4)
    noise = agent.sample_noise(jax.random.key(1), 5000)
    assert noise.shape == (5000, 2, 4)
    _, obs = env.reset(jax.random.key(0))
    act = jax.jit(jax.vmap(lambda row: agent.act(state.agent, obs, row)[0]))
    frequency = np.bincount(np.ravel(act(noise)), minlength=4) / 10000
    np.testing.assert_allclose(frequency, [0.7, 0.1, 0.1, 0.1], atol=0.025)
    for row in agent.sample_noise(jax.random.key(2), 2):
        assert agent.act(state.agent, obs, row)[0].shape == (2,)


def test_gamma_can_be_swept():
    run = rljax.train(
        "policy_iteration", "rljax/Treasure", num_seeds=2, gamma=[0.5, 0.9], total_timesteps=320,
        num_reports=5, eval_episodes=2, progress=False,
    )  # fmt: skip
    assert run.params.shape == (2, 2, 6, 2)
    np.testing.assert_allclose(run.params[:, :, 0, 1], [[0.5**4] * 2, [0.9**4] * 2], rtol=1e-5)
    assert (run.evaluation["lengths"] == 5).all()


@pytest.mark.parametrize("env", ["rljax/BlockingMaze", "FrozenLake-misc"])
def test_environments_without_a_model_are_rejected(env):
    with pytest.raises(ValueError, match=f"planning needs a model, but {env} has none"):
        rljax.train("value_iteration", env)
