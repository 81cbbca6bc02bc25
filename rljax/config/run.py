"""The options that every run has, and configs as arguments of programs for runs of any length."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rljax.config.fields import MAX_COUNT, MAX_STEPS, check, config, is_tracer, option

__all__ = ["MAX_COUNT", "MAX_STEPS", "ProgramConfig", "RunConfig", "for_programs", "with_values"]


@config
class RunConfig:
    """The options that all agents share; the config of an agent is a subclass."""

    total_timesteps: int = option(500_000, "environment steps of the whole run", low=1)
    num_envs: int = option(8, "number of parallel environments", low=1)
    num_steps: int = option(128, "rollout length per environment", low=1)
    gamma: float = option(0.99, "discount factor gamma", low=0.0, high=1.0)

    def __post_init__(self):
        check(self)
        if is_tracer(self.total_timesteps):
            return
        batch = self.num_envs * self.num_steps
        if batch > MAX_COUNT:
            raise ValueError(
                f"one update takes num_envs x num_steps = {self.num_envs} x {self.num_steps} steps,"
                f" but it must take at most {MAX_COUNT:,}: lower `num_envs` or `num_steps`."
            )
        if self.total_timesteps < batch:
            raise ValueError(
                f"`total_timesteps` is {self.total_timesteps}, but one update takes num_envs x "
                f"num_steps = {batch} steps: raise it to {batch} or more."
            )
        name, count = max(self.counts().items(), key=lambda item: item[1])
        if count > MAX_COUNT:
            raise ValueError(
                f"`total_timesteps` is {self.total_timesteps}, which makes {count} {name}, but an "
                f"agent counts at most {MAX_COUNT}: lower it to "
                f"{self.num_updates * batch * MAX_COUNT // count} or less."
            )

    def counts(self) -> dict[str, int]:
        """Returns the largest numbers that the agent counts, in proportion to total_timesteps."""
        return {"steps of each environment": self.num_updates * self.num_steps}

    @property
    def num_updates(self) -> int:
        """Number of updates; they take at most `total_timesteps` environment steps."""
        return self.total_timesteps // (self.num_envs * self.num_steps)


class ProgramConfig(NamedTuple):
    """A config as an argument of compiled programs, which serve runs of any length.

    Attributes:
      config: the config, with 0 for `total_timesteps`.
      total_timesteps: int32, traced by the programs.
    """

    config: Any
    total_timesteps: Any


def for_programs(config: RunConfig) -> Any:
    """Returns a `ProgramConfig`, or the config of a run with too many steps for an int32."""
    if config.total_timesteps > MAX_COUNT:
        return config
    same_for_all = copy.copy(config)
    object.__setattr__(same_for_all, "total_timesteps", 0)
    return ProgramConfig(same_for_all, np.int32(config.total_timesteps))


def with_values(config: Any, values: Mapping[str, Any]) -> Any:
    """Returns the config of a `ProgramConfig`, or a config, with other values of some fields."""
    if isinstance(config, ProgramConfig):
        values = {"total_timesteps": config.total_timesteps, **values}
        config = config.config
    return dataclasses.replace(config, **values)
