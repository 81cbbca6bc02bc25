"""What the algorithms that learn from replay share: their options, and when they learn."""

from typing import Any

import jax
import jax.numpy as jnp

from rljax.config import RunConfig, config, option
from rljax.ops import optimizers
from rljax.replay import n_step, prioritized, uniform
from rljax.types import Array, EnvSpec, PyTree, Replay, Transition


@config
class ReplayConfig(RunConfig):
    """Options that mean the same in every algorithm that learns from replay.

    A training is `gradient_steps` steps of the optimizer. There is one after each `train_frequency`
    environment steps, from `learning_starts` on, however many steps a rollout takes.
    """

    total_timesteps: int = option(100_000, "environment steps of the whole run", low=1)
    num_envs: int = option(4, "environments side by side (B)", low=1)
    num_steps: int = option(1, "steps of each environment between updates (T)", low=1)
    learning_rate: float = option(1e-3, "step size of the optimizer", above=0)
    anneal_lr: bool = option(False, "let the step size fall linearly to 0 over the run")
    max_grad_norm: float = option(10.0, "largest global norm of a gradient", above=0)
    buffer_size: int = option(50_000, "transitions that replay holds", low=1)
    batch_size: int = option(128, "transitions of a gradient step", low=1)
    learning_starts: int = option(1_000, "environment steps before the first training", low=1)
    train_frequency: int = option(4, "environment steps from one training to the next", low=1)
    gradient_steps: int = option(1, "steps of the optimizer in each training", low=1)
    tau: float = option(1.0, "how far the target moves to the new parameters", low=0, high=1)
    target_update_interval: int = option(
        500, "environment steps between two moves of the target", low=1
    )
    n_step: int = option(1, "rewards in a target before it bootstraps", low=1)
    prioritized: bool = option(False, "replay what had large errors more often")
    priority_exponent: float = option(0.6, "0: uniform; 1: in proportion to errors", low=0, high=1)
    importance_exponent: float = option(
        0.4, "first weight of the correction for priorities; grows to 1", low=0, high=1
    )
    hidden_sizes: tuple[int, ...] = option((64, 64), "units of each hidden layer", low=1)

    def __post_init__(self):
        super().__post_init__()
        size, batch, starts = self.buffer_size, self.batch_size, self.learning_starts
        rollout, held_back = self.num_envs * self.num_steps, (self.n_step - 1) * self.num_envs
        if size < batch:
            raise ValueError(
                f"`buffer_size` is {size}, but a batch takes {batch} transitions: raise it to "
                f"`batch_size` or more."
            )
        if size < rollout:
            raise ValueError(
                f"`buffer_size` is {size}, but one rollout takes num_envs x num_steps = {rollout} "
                "transitions: raise it to that or more."
            )
        if starts > size:
            raise ValueError(
                f"`learning_starts` is {starts}, but replay holds {size} transitions: lower it, or "
                "raise `buffer_size`."
            )
        if starts > self.total_timesteps:
            raise ValueError(
                f"`learning_starts` is {starts}, but the run takes {self.total_timesteps} steps "
                "and would learn nothing: lower it, or raise `total_timesteps`."
            )
        if starts < batch + held_back:
            raise ValueError(
                f"`learning_starts` is {starts}, but the first batch needs {batch + held_back} "
                "steps (batch_size + (n_step - 1) x num_envs): raise it to that or more."
            )


def make_replay(config: ReplayConfig) -> Replay:
    """The replay that a config names."""
    if config.prioritized:
        replay = prioritized(config.buffer_size, config.batch_size, config.priority_exponent)
    else:
        replay = uniform(config.buffer_size, config.batch_size)
    if config.n_step == 1:
        return replay
    return n_step(replay, config.n_step, config.gamma, config.num_envs)


def example(spec: EnvSpec) -> Transition:
    """One transition of an environment, for `Replay.init`."""
    obs = jnp.zeros(spec.obs_shape, jnp.int32 if spec.num_states else spec.obs_dtype)
    action = jnp.zeros(spec.action_shape) if not spec.num_actions else jnp.int32(0)
    return Transition(obs, action, jnp.float32(0), jnp.bool_(False), jnp.bool_(False), obs)


def as_items(trajectory: Transition, like: Transition) -> Transition:
    """A trajectory as replay keeps it: without extras, in the types of the example.

    Raises:
      ValueError: observations are of a type that the example's cannot hold.
    """
    given, kept = trajectory.obs.dtype, like.obs.dtype
    if not jnp.can_cast(given, kept, "same_kind"):
        raise ValueError(
            f"observations are {given}, but the spec says that replay keeps them as {kept}: set "
            f'`obs_dtype` of the EnvSpec to "{given}".'
        )
    trajectory = trajectory._replace(extras=())
    return jax.tree.map(lambda x, kind: x.astype(kind.dtype), trajectory, like)


def discount_of(batch: Transition, gamma: Any) -> Any:
    """What a bootstrap is discounted by, `[N]`: gamma, or what n-step replay says."""
    extras = batch.extras
    if isinstance(extras, dict) and "discount" in extras:
        return extras["discount"]
    return jnp.broadcast_to(jnp.float32(gamma), batch.reward.shape)


def _first_training(config: ReplayConfig) -> int:
    """The first training is after this many times `train_frequency` steps."""
    return -(-config.learning_starts // config.train_frequency)


def gradient_steps_by(config: ReplayConfig, env_steps: Array) -> Array:
    """How many gradient steps are due in all after so many environment steps."""
    trainings = env_steps // config.train_frequency - _first_training(config) + 1
    return jnp.maximum(trainings, 0) * config.gradient_steps


def learning_rate(config: ReplayConfig) -> Any:
    """The step size, or its schedule over all gradient steps of the run."""
    if not config.anneal_lr:
        return config.learning_rate
    num_steps = config.num_updates * config.num_envs * config.num_steps
    trainings = num_steps // config.train_frequency - _first_training(config) + 1
    num_gradient_steps = max(trainings, 1) * config.gradient_steps
    return optimizers.learning_rate_schedule(config.learning_rate, num_gradient_steps)


def most_gradient_steps(config: ReplayConfig) -> int:
    """The most gradient steps that one update can take."""
    rollout = config.num_envs * config.num_steps
    return -(-rollout // config.train_frequency) * config.gradient_steps


def target_is_due(config: ReplayConfig, gradient_step: Array) -> Array:
    """Whether the target network moves after this gradient step, counted from 0.

    It does after the last step of the first training at or past each whole multiple of
    `target_update_interval` environment steps.
    """
    training, within = jnp.divmod(gradient_step, config.gradient_steps)
    env_steps = (_first_training(config) + training) * config.train_frequency
    period = config.target_update_interval
    passed = env_steps // period > (env_steps - config.train_frequency) // period
    return passed & (within == config.gradient_steps - 1)


def moved_target(target: PyTree, params: PyTree, tau: Any, due: Array) -> PyTree:
    """`tau params + (1 - tau) target` where due; with tau 1 a copy, to the bit."""

    def move(target, new):
        return jnp.where(due, tau * new + (1.0 - tau) * target, target)

    return jax.tree.map(move, target, params)
