"""The options that every run has."""

from rljax.config.fields import MAX_COUNT, MAX_STEPS, check, config, option

__all__ = ["MAX_COUNT", "MAX_STEPS", "RunConfig"]


@config
class RunConfig:
    """The options that all agents share; the config of an agent is a subclass."""

    total_timesteps: int = option(500_000, "environment steps of the whole run", low=1)
    num_envs: int = option(8, "number of parallel environments", low=1)
    num_steps: int = option(128, "rollout length per environment", low=1)
    gamma: float = option(0.99, "discount factor gamma", low=0.0, high=1.0)

    def __post_init__(self):
        check(self)
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
