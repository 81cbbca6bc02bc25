"""Tasks that some agents do not solve with their default options, and what does."""

from collections.abc import Mapping
from typing import Any

# id of the environment: agents that lose seeds there (docs/robustness.md), and agents that do not
LIMITS = {
    "MountainCar-v0": (("pqn",), "ppo, trpo or dqn"),
    "MountainCarContinuous-v0": (("ddpg", "trpo"), "ppo or sac"),
}
CORRELATED = "ornstein_uhlenbeck"


def hint(agent: str, env_id: str, options: Mapping[str, Any]) -> str:
    """Returns one line on a task that the agent does not solve on every seed, or "".

    Args:
      agent: name of the agent.
      env_id: id of the environment.
      options: the options that were given.

    Example:
      >>> hint("pqn", "MountainCar-v0", {})
      'with its defaults pqn does not solve MountainCar-v0 on every seed: use ppo, trpo or dqn'
      >>> hint("dqn", "MountainCar-v0", {})
      ''
    """
    env_id = env_id.removeprefix("gymnax/")
    agents, cure = LIMITS.get(env_id, ((), ""))
    if agent not in agents or options.get("noise") == CORRELATED:
        return ""
    if agent == "ddpg":
        cure += f", or --noise {CORRELATED} --noise-std 0.5"
    return f"with its defaults {agent} does not solve {env_id} on every seed: use {cure}"
