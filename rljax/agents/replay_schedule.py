"""Options of experience replay, its metric, and when gradient steps and target updates are due."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rljax.config import RunConfig, config, is_tracer, option
from rljax.ops import optimizers
from rljax.replay import n_step, prioritized, ring, uniform
from rljax.types import Array, PyTree, Replay


@config
class ReplayConfig(RunConfig):
    """Options of every algorithm that learns from replay.

    An update is `gradient_steps` gradient steps. From `learning_starts` on there is one update
    every `train_frequency` environment steps, whatever the length of a rollout.
    """

    total_timesteps: int = option(100_000, "environment steps of the whole run", low=1)
    num_envs: int = option(4, "number of parallel environments", low=1)
    num_steps: int = option(1, "rollout length per environment", low=1)
    buffer_size: int = option(50_000, "capacity of the replay buffer, in transitions", low=1)
    batch_size: int = option(128, "transitions per gradient step", low=1)
    learning_starts: int = option(
        1_000, "environment steps collected before the first gradient step", low=1
    )
    train_frequency: int = option(4, "environment steps between two updates", low=1)
    gradient_steps: int = option(1, "gradient steps per update", low=1)
    tau: float = option(1.0, "target-network update rate; 1 copies the parameters", low=0, high=1)
    target_update_interval: int = option(
        500, "environment steps between two target-network updates", low=1
    )
    n_step: int = option(1, "number of rewards in an n-step return", low=1)
    prioritized: bool = option(False, "prioritized experience replay instead of uniform")
    priority_exponent: float = option(
        0.6, "priority exponent alpha; 0 samples uniformly", low=0, high=1
    )
    importance_exponent: float = option(
        0.4, "initial importance-sampling exponent beta, annealed linearly to 1", low=0, high=1
    )
    hidden_sizes: tuple[int, ...] = option((64, 64), "units of each hidden layer", low=1)

    def __post_init__(self):
        super().__post_init__()
        size, batch, starts = self.buffer_size, self.batch_size, self.learning_starts
        rollout = self.num_envs * self.num_steps
        needed = batch + (self.n_step - 1) * self.num_envs
        if size < batch:
            raise ValueError(
                f"`buffer_size` is {size}, but a batch has {batch} transitions: raise it to "
                "`batch_size` or more."
            )
        if size < rollout:
            raise ValueError(
                f"`buffer_size` is {size}, but one rollout has num_envs x num_steps = {rollout} "
                f"transitions: raise it to {rollout} or more."
            )
        if starts > size:
            raise ValueError(
                f"`learning_starts` is {starts}, but the replay buffer holds {size} transitions: "
                "lower it, or raise `buffer_size`."
            )
        has_length = not is_tracer(self.total_timesteps)
        if has_length and starts > self.total_timesteps:
            raise ValueError(
                f"`learning_starts` is {starts}, but the run has only {self.total_timesteps} steps "
                "and would learn nothing: lower it, or raise `total_timesteps`."
            )
        if has_length and self.train_frequency > self.total_timesteps:
            raise ValueError(
                f"`train_frequency` is {self.train_frequency}, but the run has only "
                f"{self.total_timesteps} steps and would learn nothing: lower it, or raise "
                "`total_timesteps`."
            )
        if starts < needed:
            raise ValueError(
                f"`learning_starts` is {starts}, but the first batch needs {needed} steps "
                f"(batch_size + (n_step - 1) x num_envs): raise it to {needed} or more."
            )

    def counts(self) -> dict[str, int]:
        gradient_steps = -(-self.total_timesteps * self.gradient_steps // self.train_frequency)
        return super().counts() | {
            "environment steps": self.total_timesteps,
            "gradient steps (`gradient_steps` every `train_frequency` steps)": gradient_steps,
        }


def make_replay(config: ReplayConfig) -> Replay:
    """Returns the replay that a config describes."""
    if config.prioritized:
        replay = prioritized(config.buffer_size, config.batch_size, config.priority_exponent)
    else:
        replay = uniform(config.buffer_size, config.batch_size)
    if config.n_step == 1:
        return replay
    return n_step(replay, config.n_step, config.gamma, config.num_envs)


def replay_fill(buffer: Replay, replay_state: PyTree) -> dict[str, Array]:
    """Returns the metric `charts/replay_fill`, the fraction of the capacity that is in use.

    There is none for a replay buffer that keeps its items in another way than those of rljax.
    """

    def is_ring(x):
        return isinstance(x, ring.Ring)

    rings = list(filter(is_ring, jax.tree.leaves(replay_state, is_leaf=is_ring)))
    if not rings:
        return {}
    return {"charts/replay_fill": buffer.size(replay_state) / ring.capacity(rings[0])}


def annealed_beta(config: ReplayConfig, env_steps: Array) -> Array:
    """Returns the importance-sampling exponent, annealed linearly to 1 over the run."""
    start = config.importance_exponent
    return start + (1.0 - start) * (env_steps / config.total_timesteps)


def _first_update(config: ReplayConfig) -> int:
    """Returns k: the first update comes after k x `train_frequency` environment steps."""
    return -(-config.learning_starts // config.train_frequency)


def gradient_steps_by(config: ReplayConfig, env_steps: Array) -> Array:
    """Returns the number of gradient steps due in the first `env_steps` environment steps."""
    updates = env_steps // config.train_frequency - _first_update(config) + 1
    return jnp.maximum(updates, 0) * config.gradient_steps


def max_gradient_steps(config: ReplayConfig) -> int:
    """Returns the largest number of gradient steps that one rollout can make due."""
    rollout = config.num_envs * config.num_steps
    return -(-rollout // config.train_frequency) * config.gradient_steps


def annealed(config: ReplayConfig, learning_rate: Any) -> Callable[[Any], Any]:
    """Returns a schedule that anneals a learning rate linearly over all gradient steps."""
    env_steps = config.num_updates * config.num_envs * config.num_steps
    updates = env_steps // config.train_frequency - _first_update(config) + 1
    updates = jnp.maximum(updates, 1) if is_tracer(updates) else max(updates, 1)
    return optimizers.learning_rate_schedule(learning_rate, updates * config.gradient_steps)


def target_is_due(config: ReplayConfig, number: Array) -> Array:
    """Whether the target network is updated after gradient step `number`, counted from 0.

    It is updated after the last gradient step of an update, in the first update at or after each
    multiple of `target_update_interval` environment steps. If that is every update, it is updated
    after every gradient step, as in REDQ (Chen et al. 2021, https://arxiv.org/abs/2101.05982,
    algorithm 1). With `config.policy_delay` it waits for the next update of the policy: it is due
    if it was after one of the latest gradient steps.
    """
    latest = jnp.subtract.outer(number, jnp.arange(getattr(config, "policy_delay", 1)))
    return _is_due_without_delay(config, latest).any(axis=-1)


def _is_due_without_delay(config: ReplayConfig, number: Array) -> Array:
    update, within = jnp.divmod(number, config.gradient_steps)
    env_steps = (_first_update(config) + update) * config.train_frequency
    interval = config.target_update_interval
    passed = env_steps // interval > (env_steps - config.train_frequency) // interval
    if interval <= config.train_frequency:
        return passed
    return passed & (within == config.gradient_steps - 1)
