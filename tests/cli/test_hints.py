"""The line on tasks that an agent does not solve with its default options."""

import pytest

from rljax import envs
from rljax.agents import AGENTS
from rljax.cli import hints


def test_agents_environments_and_cures_exist():
    for env_id, (agents, cure) in hints.LIMITS.items():
        actions = "discrete" if envs.make(env_id).spec.num_actions else "continuous"
        names = [word for word in cure.replace(",", "").split() if word not in ("or", "and")]
        for name in (*agents, *names):
            assert actions in AGENTS[name].actions, (env_id, name)
        assert not set(agents) & set(names)


@pytest.mark.parametrize("env_id", ["MountainCarContinuous-v0", "gymnax/MountainCarContinuous-v0"])
def test_the_line_of_ddpg_names_its_noise(env_id):
    assert hints.hint("ddpg", env_id, {}) == (
        "with its defaults ddpg does not solve MountainCarContinuous-v0 on every seed: use ppo or "
        "sac, or --noise ornstein_uhlenbeck --noise-std 0.5"
    )
    assert hints.hint("ddpg", env_id, {"noise": "ornstein_uhlenbeck"}) == ""


@pytest.mark.parametrize(("agent", "env_id"), [("ppo", "MountainCar-v0"), ("pqn", "CartPole-v1")])
def test_other_pairs_have_none(agent, env_id):
    assert hints.hint(agent, env_id, {}) == ""
