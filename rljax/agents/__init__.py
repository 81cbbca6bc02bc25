"""The algorithms. `AGENTS` is the visible table: name -> its config and its maker."""

from collections.abc import Callable
from typing import NamedTuple

from rljax.agents import a2c, ppo
from rljax.types import Agent


class AgentRow(NamedTuple):
    """One algorithm: `make(config, spec, **pieces) -> Agent`."""

    config: type
    make: Callable[..., Agent]
    about: str = ""


AGENTS = {
    "ppo": AgentRow(
        ppo.PPOConfig, ppo.ppo, "proximal policy optimization, clipped or with a KL penalty"
    ),
    "a2c": AgentRow(a2c.A2CConfig, a2c.a2c, "advantage actor-critic on short rollouts"),
}
