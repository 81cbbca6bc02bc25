"""The form that programs take on a GPU: the same results, without loops that wait for the host."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from probes import with_memory
from test_contract import config_of

import rljax
from rljax.agents import AGENTS
from rljax.ops import platform
from rljax.training.learner import make_learner

pytestmark = pytest.mark.usefixtures("quick_compiles")

B, T, UPDATES = 4, 8, 12
FIELDS = {
    "num_envs": B,
    "num_steps": T,
    "learning_starts": 50,
    "train_frequency": 6,
    "buffer_size": 120,
}
# loops over the epochs of a model's training, the steps of a line search and of a search tree
OTHER_LOOPS = {"trpo": 1, "mbpo": 4, "pets": 3}
TABULAR = [name for name, row in AGENTS.items() if row.tabular]
ON_HOST = "alphazero", "muzero"  # need other environments
NAMES = [name for name in AGENTS if name not in (*TABULAR, *ON_HOST)]


def learner_of(name, **fields):
    row, config = AGENTS[name], config_of(name, is_full=False)
    known = {field.name for field in dataclasses.fields(config)}
    config = dataclasses.replace(
        config, **{k: v for k, v in (FIELDS | fields).items() if k in known}
    )
    env_id = "CartPole-v1" if "discrete" in row.actions else "Pendulum-v1"
    env = with_memory(row, config, rljax.make(env_id, max_episode_steps=7))
    env = rljax.build(env, num_envs=B)
    return make_learner(row.make(config, env.spec), env, T)


def trained(name, **fields):
    """Returns the state after some updates, and their metrics."""
    learner = learner_of(name, **fields)

    def train(key):
        return jax.lax.scan(lambda state, _: learner.step(state), learner.init(key), length=UPDATES)

    return jax.jit(train)(jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ppo", {}), ("a2c", {}), ("reinforce", {}), ("pqn", {}), ("ddpg", {}),
        ("dqn", {}), ("dqn", {"prioritized": True, "gradient_steps": 2}),
        ("dqn", {"train_frequency": 48}),  # a gradient step after some of the rollouts
    ],
)  # fmt: skip
def test_results_are_those_of_a_cpu(monkeypatch, name, fields):
    """Training is the same; episodes end by failure and by the time limit, often in one update."""
    expected, expected_metrics = trained(name, **fields)
    monkeypatch.setattr(platform, "is_gpu", lambda: True)
    got, metrics = trained(name, **fields)
    for x, y in zip(
        jax.tree.leaves((got.agent, got.obs, metrics)),
        jax.tree.leaves((expected.agent, expected.obs, expected_metrics)), strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)
    if "dqn" in name:
        assert expected_metrics["losses/td_loss"].weight.sum() > 4


def loops_that_wait(jaxpr):
    """Returns the number of `while` loops in a jaxpr; loops of a known length are scans."""
    count = 0
    for eqn in jaxpr.eqns:
        count += eqn.primitive.name == "while"
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: isinstance(x, core.ClosedJaxpr)
        ):
            inner = getattr(inner, "jaxpr", inner)
            if isinstance(inner, core.Jaxpr):
                count += loops_that_wait(inner)
    return count


@pytest.mark.parametrize("name", NAMES)
def test_no_loop_waits_for_the_host(monkeypatch, name):
    def count():
        learner = learner_of(name)
        state = jax.eval_shape(learner.init, jax.random.key(0))
        return loops_that_wait(jax.make_jaxpr(learner.step)(state).jaxpr)

    assert count() > OTHER_LOOPS.get(name, 0)  # the loop of `auto_reset`, on a CPU
    monkeypatch.setattr(platform, "is_gpu", lambda: True)
    assert count() == OTHER_LOOPS.get(name, 0)


def test_loops_are_counted_inside_other_loops():
    def endless(x):
        return jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1, x)

    def nested(x):
        return jax.lax.scan(lambda x, _: (jax.jit(endless)(x), None), endless(x), length=2)[0]

    assert loops_that_wait(jax.make_jaxpr(nested)(jnp.int32(0)).jaxpr) == 2
    known = jax.make_jaxpr(lambda x: jax.lax.fori_loop(0, 3, lambda i, x: x + i, x))
    assert loops_that_wait(known(jnp.int32(0)).jaxpr) == 0
