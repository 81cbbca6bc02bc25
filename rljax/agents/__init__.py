"""The algorithms. `AGENTS` is the visible table: name -> its config, its maker, and what it is."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rljax.agents import a2c, ppo
from rljax.types import Agent, Env, EnvSpec


def as_it_is(config: Any, env: Env) -> Env:
    """What most agents ask of an environment: nothing."""
    del config
    return env


class AgentRow(NamedTuple):
    """One algorithm: `make(config, spec, **pieces) -> Agent`, and where it stands in the field."""

    config: type
    make: Callable[..., Agent]
    about: str = ""
    actions: tuple[str, ...] = ("discrete", "continuous")
    table: bool = False  # it keeps a table of states, and so needs an environment that counts them
    on_policy: bool = True
    model_based: bool = False
    wrap: Callable[[Any, Env], Env] = as_it_is  # of one environment, before it becomes a batch

    def check(self, name: str, spec: EnvSpec) -> None:
        """That the algorithm can act in an environment.

        Raises:
          ValueError: its actions are of the other kind, or it has no numbered states.
        """
        kind = "discrete" if spec.num_actions else "continuous"
        if kind not in self.actions:
            can = ", ".join(other for other, row in AGENTS.items() if kind in row.actions)
            raise ValueError(
                f"`{name}` needs {self.actions[0]} actions, but those of {spec.env_id} are {kind}: "
                f"take one of {can}."
            )
        if self.table and not spec.num_states:
            raise ValueError(
                f"`{name}` keeps a table, one row a state, but {spec.env_id} observes "
                f"{spec.obs_shape} and numbers no states: take a world such as rljax/Maze, or an "
                "agent with a network."
            )


AGENTS = {
    "ppo": AgentRow(
        ppo.PPOConfig, ppo.ppo, "proximal policy optimization, clipped or with a KL penalty"
    ),
    "a2c": AgentRow(a2c.A2CConfig, a2c.a2c, "advantage actor-critic on short rollouts"),
}
