"""The learning loop that every algorithm with experience replay shares, and its options.

An algorithm is one function, `gradient_step(learned, batch) -> (learned, td_error, metrics)`. The
loop stores the rollout, decides how many gradient steps are due, samples, weights, reprioritizes,
standardizes observations and sums metrics.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from rljax.agents import replay_schedule as schedule
from rljax.agents.normalize import (
    init_obs_moments,
    normalizes,
    standardize_obs,
    update_obs_moments,
)
from rljax.agents.replay_schedule import ReplayConfig
from rljax.networks.encoder import example_obs
from rljax.ops import platform, random, td
from rljax.ops.observations import action_struct, environment_obs
from rljax.replay import check_memory, check_replay
from rljax.types import (
    Array,
    EnvSpec,
    Key,
    Mean,
    Metrics,
    PyTree,
    RecurrentObs,
    Replay,
    SampleNoise,
    Shared,
    Transition,
    identity,
)


class Learned(NamedTuple):
    """The part of the agent's state that gradient steps change."""

    params: PyTree
    target_params: PyTree
    opt_state: PyTree


class OffPolicyState(NamedTuple):
    """The state of an off-policy agent.

    Attributes:
      learned: the part that gradient steps change; a record with `params`, target parameters and
        optimizer states.
      replay: replay buffer; observations are stored unnormalized.
      env_steps: environment steps so far, int32.
      moments: running moments of the observations; () without normalization.
    """

    learned: PyTree
    replay: PyTree
    env_steps: Shared
    moments: PyTree = ()

    @property
    def params(self) -> PyTree:
        """Parameters of the online networks."""
        return self.learned.params


class Batch(NamedTuple):
    """The data of one gradient step.

    Attributes:
      transitions: sampled transitions `[N]`, observations standardized where configured.
      discount: discount of the bootstrap value, `[N]`: gamma, or gamma^n of an n-step return.
      weight: importance-sampling weights, `[N]`; 1 for uniform replay.
      number: number of this gradient step since the start of the run, from 0, int32.
      target_is_due: whether the target networks are updated after this step, bool.
      noise: one row of the `sample_noise` given to `OffPolicyLoop.learn`; None without it.
    """

    transitions: Transition
    discount: Array
    weight: Array
    number: Array
    target_is_due: Array
    noise: PyTree = None


class GradientStep(Protocol):
    """One gradient step of an algorithm."""

    def __call__(self, learned: PyTree, batch: Batch, /) -> tuple[PyTree, Array, dict[str, Any]]:
        """Returns the new `learned`, the TD errors `[N]` for the priorities, and metrics.

        Metrics are numbers `[]`, or `Mean`s of quantities that only some gradient steps have.
        """
        ...


class Learn(Protocol):
    """The update of an off-policy agent."""

    def __call__(
        self, state: OffPolicyState, trajectory: Transition, key: Key, gradient_step: GradientStep,
        sample_noise: SampleNoise | None = None, /,
    ) -> tuple[OffPolicyState, Metrics]:  # fmt: skip
        """Stores a rollout `[T, B]` and takes the gradient steps that are due after it.

        Args:
          state: the state of the agent.
          trajectory: the rollout.
          key: random key of the update.
          gradient_step: one gradient step of the algorithm.
          sample_noise: `(key, n) -> noise[n, ...]`, random numbers of `n` gradient steps.

        Returns:
          The new state, and each metric of `gradient_step` as a mean over gradient steps.
        """
        ...


class OffPolicyLoop(NamedTuple):
    """The loop around an algorithm's gradient step; see `off_policy_loop`.

    Attributes:
      init: `(learned) -> OffPolicyState`.
      learn: `(state, trajectory[T, B], key, gradient_step, sample_noise=None) -> (state, metrics)`.
      standardize: `(state, obs) -> obs`, as the networks see them.
    """

    init: Callable[[PyTree], OffPolicyState]
    learn: Learn
    standardize: Callable[[OffPolicyState, PyTree], PyTree]


def off_policy_loop(
    config: ReplayConfig, spec: EnvSpec, *, replay: Replay | None = None,
    average: Callable[[PyTree], PyTree] = identity, extras: Mapping[str, Any] | tuple[()] = (),
) -> OffPolicyLoop:  # fmt: skip
    """Makes the learning loop of an algorithm with experience replay.

    Args:
      config: `config.normalize_obs`, where it exists, standardizes observations.
      spec: description of the environment.
      replay: default uniform or prioritized replay of n-step returns, by `config`.
      average: mean over workers; each worker has its own replay buffer.
      extras: the extras of one step that replay stores beside the transition, a dict of arrays or
        shapes without batch axes; `act` must return at least these. By default none are stored.

    Raises:
      ValueError: `replay` is not a `Replay`, or its items need more memory than the machine has.
    """
    item = example_transition(spec)._replace(extras=extras)
    if replay is None:
        check_memory(config.buffer_size, item, "buffer_size")
        replay = schedule.make_replay(config)
    check_replay(replay)
    buffer = replay
    normalized = getattr(config, "normalize_obs", False) and normalizes(spec)

    def init(learned):
        moments = init_obs_moments(spec) if normalized else ()
        return OffPolicyState(learned, buffer.init(item), Shared(jnp.int32(0)), moments)

    def standardize(state, obs):
        obs = environment_obs(obs)
        return standardize_obs(obs, state.moments) if normalized else obs

    def learn(state, trajectory, key, gradient_step, sample_noise=None):
        items = as_items(trajectory, item)
        env_steps = state.env_steps.value + trajectory.reward.size
        first = schedule.gradient_steps_by(config, state.env_steps.value)
        last = schedule.gradient_steps_by(config, env_steps)
        beta = schedule.annealed_beta(config, env_steps)
        rows = precomputed(config, buffer, key, first, sample_noise)

        def one_step(learned, replay_state, number):
            replay_noise, target_is_due, noise = jax.tree.map(lambda x: x[number - first], rows)
            sample = buffer.sample(replay_state, replay_noise)
            transitions = sample.transitions
            discount = bootstrap_discount(transitions, config.gamma)
            transitions = transitions._replace(
                obs=standardize(state, transitions.obs),
                next_obs=standardize(state, transitions.next_obs),
            )
            weight = td.importance_weights(sample.probability, sample.min_probability, beta)
            batch = Batch(transitions, discount, weight, number, target_is_due, noise)
            learned, td_error, metrics = gradient_step(learned, batch)
            return learned, buffer.reprioritize(replay_state, sample.indices, td_error), metrics

        def body(number, carry):
            learned, replay_state, metric_sums = carry
            learned, replay_state, metrics = one_step(learned, replay_state, number)
            return learned, replay_state, metric_sums + ravel_pytree(metrics)[0]

        replay_state = buffer.add(state.replay, items)
        metrics = jax.eval_shape(one_step, state.learned, replay_state, first)[2]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)
        sums, unravel = ravel_pytree(zeros)  # one vector: many small kernels would take longer
        carry = state.learned, replay_state, sums
        learned, replay_state, sums = repeat_from(
            first, last, schedule.max_gradient_steps(config), body, carry
        )

        moments = state.moments
        if normalized:
            moments = update_obs_moments(spec, moments, items.obs, average)
        count = (last - first).astype(jnp.float32)
        metrics = {
            name: total if isinstance(total, Mean) else Mean(total, count)
            for name, total in unravel(average(sums)).items()
        }
        metrics |= schedule.replay_fill(buffer, replay_state)
        return OffPolicyState(learned, replay_state, Shared(env_steps), moments), metrics

    return OffPolicyLoop(init, learn, standardize)


def repeat_from(
    first: Array, last: Array, max_num: int, body: Callable[[Array, PyTree], PyTree], carry: PyTree
) -> PyTree:
    """Returns `jax.lax.fori_loop(first, last, body, carry)`.

    On a GPU it is a loop of `max_num` iterations inside one branch, whose results count only from
    `first` to `last`: the host then waits for one condition in place of one in each iteration.
    """
    if not platform.is_gpu():
        return jax.lax.fori_loop(first, last, body, carry)

    def count_until_last(i, carry):
        def select(new, old):
            return old if new is old else jnp.where(first + i < last, new, old)

        return jax.tree.map(select, body(first + i, carry), carry)

    def loop(carry):
        return jax.lax.fori_loop(0, max_num, count_until_last, carry)

    return jax.lax.cond(last > first, loop, identity, carry)


def precomputed(
    config: ReplayConfig, replay: Replay, key: Key, first: Array, sample_noise: SampleNoise | None
) -> tuple[PyTree, Array, PyTree]:
    """Returns one row for each gradient step: replay noise, whether the target is due, noise.

    They are computed in one call each: inside the loop they would be many small kernels.
    """
    num, noise = schedule.max_gradient_steps(config), None
    if sample_noise is not None:
        key, noise_key = random.split(key)
        noise = sample_noise(noise_key, num)
    target_is_due = schedule.target_is_due(config, first + jnp.arange(num))
    return replay.sample_noise(key, num), target_is_due, noise


def example_transition(spec: EnvSpec) -> Transition:
    """Returns one transition of zeros, without batch axes, for `Replay.init`."""
    obs = example_obs(spec, batch_shape=())
    struct = action_struct(spec)
    action = jnp.zeros(struct.shape, struct.dtype)
    return Transition(obs, action, jnp.float32(0), jnp.bool_(False), jnp.bool_(False), obs)


def as_items(trajectory: Transition, item: Transition) -> Transition:
    """Returns a trajectory as replay stores it: with the extras and in the dtypes of `item`.

    The memory of an agent that carries one (`envs.memory`) is left out, and so is the state of the
    environment (`envs.state`).

    Raises:
      ValueError: observations have a dtype that cannot be stored as that of `item`.
    """
    if isinstance(trajectory.obs, RecurrentObs):
        trajectory = trajectory._replace(action=trajectory.action[0])
    trajectory = trajectory._replace(
        obs=environment_obs(trajectory.obs), next_obs=environment_obs(trajectory.next_obs)
    )
    paths = jax.tree_util.tree_leaves_with_path(trajectory.obs)
    for (path, given), stored in zip(paths, jax.tree.leaves(item.obs), strict=True):
        if not jnp.can_cast(given.dtype, stored.dtype, "same_kind"):
            field = f" of `obs{jax.tree_util.keystr(path)}`" if path else ""
            raise ValueError(
                f"observations{field} are {given.dtype}, but the spec says that replay stores them "
                f'as {stored.dtype}: set `obs_dtype` of the EnvSpec to "{given.dtype}".'
            )
    extras = {name: trajectory.extras[name] for name in item.extras} if item.extras else ()
    trajectory = trajectory._replace(extras=extras)
    return jax.tree.map(lambda x, like: x.astype(like.dtype), trajectory, item)


def bootstrap_discount(transitions: Transition, gamma: Any) -> Array:
    """Returns the discount of the bootstrap value, `[N]`: gamma, or that of n-step replay."""
    extras = transitions.extras
    if isinstance(extras, dict) and "discount" in extras:
        return extras["discount"]
    return jnp.broadcast_to(jnp.float32(gamma), transitions.reward.shape)


def update_target(target: PyTree, params: PyTree, tau: Any, is_due: Array) -> PyTree:
    """Returns `tau params + (1 - tau) target` where due; `tau` 1 is an exact copy.

    Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971 (algorithm 1).
    """

    def move(target, new):
        return jnp.where(is_due, tau * new + (1.0 - tau) * target, target)

    return jax.tree.map(move, target, params)
