"""Every metric that an agent reports is described, and its value is that of its formula."""

import dataclasses

import jax
import pytest
from probes import walk, with_memory
from test_contract import B, T, config_of

import rljax
from rljax.agents import AGENTS
from rljax.agents.metric_descriptions import METRICS, metrics_of
from rljax.config import field_types
from rljax.envs import wrappers
from rljax.training.learner import make_learner

TRAINING = {"charts/episodic_return", "charts/episodic_length", "charts/reward"}


def variants(name):
    """Returns the configs of an agent that turn on all of its options, and the kind of actions."""
    kinds, known = AGENTS[name].actions, field_types(AGENTS[name].config)
    plain, full = config_of(name, False), config_of(name, True)
    if "memory" in known:
        full = dataclasses.replace(full, memory="gru")
    variants = [(plain, kinds[0]), (full, kinds[-1])]
    if "surrogate" in known:
        variants.append((dataclasses.replace(plain, surrogate="clip"), kinds[0]))
    return variants


def reported(row, config, kind):
    """Returns the names of the metrics of one update, which is traced and not run."""
    env = rljax.make("rljax/Maze") if row.tabular else walk(continuous=kind == "continuous")
    env = wrappers.batched(with_memory(row, config, env), B)
    learner = make_learner(row.make(config, env.spec), env, T)
    state = jax.eval_shape(learner.init, jax.random.key(0))
    return set(jax.eval_shape(learner.step, state)[1])


@pytest.mark.parametrize("name", AGENTS)
def test_metrics_of_each_agent_are_those_described(name):
    found = set.union(*(reported(AGENTS[name], *variant) for variant in variants(name)))
    assert found - TRAINING == set(metrics_of(name))


def test_descriptions_name_agents_and_stand_once():
    rows = [(agent, metric.name) for metric in METRICS for agent in metric.agents or ["all"]]
    assert len(rows) == len(set(rows))
    assert {agent for agent, _ in rows} - {"all"} <= AGENTS.keys()
    assert {metric.name for metric in METRICS if not metric.agents} >= TRAINING
