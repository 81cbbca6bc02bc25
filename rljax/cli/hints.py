"""Tasks that some agents do not solve with their default options, and what does."""

from collections.abc import Mapping
from typing import Any

# id of the environment: agents that lack the exploration for it, and what to use
LIMITS = {
    "MountainCar-v0": (
        ("pqn", "a2c", "a3c", "impala", "reinforce", "actor_critic"), "ppo, trpo or dqn",
    ),
    "MountainCarContinuous-v0": (
        ("ddpg", "td3", "trpo", "a2c", "a3c", "impala", "reinforce", "actor_critic"),
        "ppo or sac",
    ),
}  # fmt: skip
CORRELATED = "ornstein_uhlenbeck"


def hint(agent: str, env_id: str, options: Mapping[str, Any]) -> str:
    """Returns one line on a task that the agent is known not to solve reliably, or "".

    Args:
      agent: name of the agent.
      env_id: id of the environment.
      options: the options that were given.

    Example:
      >>> hint("pqn", "MountainCar-v0", {})
      'pqn seldom finds the goal of MountainCar-v0 by its exploration: use ppo, trpo or dqn'
      >>> hint("dqn", "MountainCar-v0", {})
      ''
    """
    env_id = env_id.removeprefix("gymnax/")
    agents, cure = LIMITS.get(env_id, ((), ""))
    if agent not in agents or options.get("noise") == CORRELATED:
        return ""
    if agent in ("ddpg", "td3"):
        cure += f", or --noise {CORRELATED} --noise-std 0.5"
    return f"{agent} seldom finds the goal of {env_id} by its exploration: use {cure}"
