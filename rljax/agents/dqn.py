"""Deep Q-networks: replay and fixed targets, https://doi.org/10.1038/nature14236.

Double DQN (https://arxiv.org/abs/1509.06461) is another `bootstrap`, dueling
(https://arxiv.org/abs/1511.06581) another `network`, prioritized replay another `replay`. Differs
from the paper: Adam for RMSProp; the target is counted in environment steps, not gradient steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from rljax.agents import off_policy
from rljax.agents.acting import acting, check_discrete
from rljax.agents.normalize import standardized
from rljax.agents.off_policy import ReplayConfig
from rljax.config import config, option
from rljax.networks import ACTIVATIONS, action_values
from rljax.ops import moments as running
from rljax.ops import td
from rljax.replay import check_memory
from rljax.types import Agent, Array, EnvSpec, Mean, PyTree, Replay, Shared, identity


@config
class QConfig(ReplayConfig):
    """Options that mean the same in every algorithm of the DQN family."""

    eps_start: float = option(1.0, "chance of a random action at first", low=0, high=1)
    eps_end: float = option(0.05, "and at last", low=0, high=1)
    exploration_fraction: float = option(0.2, "part of the run over which it falls", low=0, high=1)
    double: bool = option(False, "the online network chooses what is bootstrapped from")
    dueling: bool = option(False, "a stream for the state and one for the actions")
    noisy: bool = option(False, "explore by learned noise in the network, not by chance")
    normalize_obs: bool = option(False, "show observations by their running mean and variance")
    activation: str = option("relu", "of the hidden layers", choices=tuple(ACTIVATIONS))


@config
class DQNConfig(QConfig):
    loss: str = option("squared", "of the TD error", choices=tuple(td.LOSSES))


class DQNState(NamedTuple):
    params: PyTree
    target_params: PyTree
    opt_state: PyTree
    replay: PyTree  # observations as they were
    env_steps: Shared  # int32
    moments: PyTree = ()  # of observations, where they are normalised


class Objective(NamedTuple):
    """What a network's outputs say of the return, and what they learn from.

    values: `outputs[..., A, *] -> [..., A]`, the action values
    errors: `(online, target, batch, discount[N]) -> (loss[N], td_error[N], value[N])`, where
            `online` and `target` map observations to the outputs of the two networks
    """

    values: Callable[[Array], Array]
    errors: Callable[..., tuple[Array, Array, Array]]


def td_objective(bootstrap: Callable[..., Array], loss: Callable[[Array], Array]) -> Objective:
    """One number for each action, moved to `r + gamma Q_target(s', a')`, a' by the bootstrap."""

    def errors(online, target, batch, discount):
        value = td.chosen(online(batch.obs), batch.action)
        beyond = target(batch.next_obs)
        action = bootstrap(online(batch.next_obs), beyond)
        goal = td.td_target(batch.reward, batch.terminated, discount, td.chosen(beyond, action))
        td_error = jax.lax.stop_gradient(goal) - value
        return loss(td_error), td_error, value

    return Objective(identity, errors)


def dqn(
    config: Any, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    bootstrap: Callable[..., Array] | None = None, loss: Callable[[Array], Array] | None = None,
    objective: Objective | None = None, average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a DQN agent.

    Args:
      config: a `DQNConfig`, or another `QConfig` with an `objective`; floats may be tracers.
      spec: of the environment that it will see.
      network: flax module, `obs[..., *obs_shape] -> outputs[..., A, *]`.
      optimizer: default Adam with clipped gradients.
      replay: such as `n_step(prioritized(...), ...)` of `rljax.replay`.
      bootstrap: `(online[N, A], target[N, A]) -> action[N]`, see `ops.td`.
      loss: `td_error[N] -> [N]`.
      objective: instead of `bootstrap` and `loss`, for outputs that are not values.
      average: over workers: `partial(lax.pmean, axis_name=...)`; each has its own replay.

    Raises:
      ValueError: actions are continuous, or replay needs more memory than there is.
    """
    check_discrete("dqn", spec)
    item = off_policy.example(spec)
    if replay is None:
        check_memory(config.buffer_size, item, "buffer_size")
    network = network or action_values.q_network(
        spec, config.hidden_sizes, config.activation, dueling=config.dueling, noisy=config.noisy
    )
    optimizer = optimizer or optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adam(off_policy.learning_rate(config)),
    )
    replay = replay or off_policy.make_replay(config)
    if objective is None:
        bootstrap = bootstrap or td.action_selection(config.double)
        objective = td_objective(bootstrap, loss or td.LOSSES[config.loss])

    normalizes = config.normalize_obs and not spec.num_states

    def outputs(params, moments, obs, key):
        rngs = None if key is None else {"noise": key}
        return network.apply(params, standardized(moments, obs) if normalizes else obs, rngs=rngs)

    sample_noise, act, greedy = acting(
        config, spec,
        lambda state, obs, key: objective.values(outputs(state.params, state.moments, obs, key)),
    )  # fmt: skip

    def init(key):
        params = network.init(key, item.obs[None])
        return DQNState(
            params, jax.tree.map(jnp.copy, params), optimizer.init(ravel_pytree(params)[0]),
            replay.init(item), Shared(jnp.int32(0)),
            running.init_moments(spec.obs_shape) if normalizes else (),
        )  # fmt: skip

    def weighted_loss(flat, target, network_of, sample, beta, keys):
        loss, td_error, value = objective.errors(
            network_of(flat, keys[0]), network_of(target, keys[1]), sample.transitions,
            off_policy.discount_of(sample.transitions, config.gamma),
        )  # fmt: skip
        weight = td.importance_weights(sample.probability, sample.min_probability, beta)
        return (weight * loss).mean(), (td_error, jnp.stack([loss.mean(), value.mean()]))

    def update(state, trajectory, key):
        memory = replay.add(state.replay, off_policy.as_items(trajectory, item))
        before = state.env_steps.value
        now = before + trajectory.reward.size
        done, due = (off_policy.gradient_steps_by(config, steps) for steps in (before, now))
        progress = now / config.total_timesteps
        beta = config.importance_exponent + (1.0 - config.importance_exponent) * progress
        most = off_policy.most_gradient_steps(config)
        network_keys = None
        if config.noisy:
            key, noise_key = jax.random.split(key)
            network_keys = jax.random.split(noise_key, (most, 2))
        chance = replay.sample_noise(key, most), network_keys
        moves = off_policy.target_is_due(config, done + jnp.arange(most))
        flat, unravel = ravel_pytree(state.params)

        def network_of(flat, key):
            return lambda obs: outputs(unravel(flat), state.moments, obs, key)

        def gradient_step(i, carry):
            flat, target, opt_state, memory, sums = carry
            (noise, keys), is_due = jax.tree.map(lambda x: x[i - done], (chance, moves))
            sample = replay.sample(memory, noise)
            grads, (td_error, seen) = jax.grad(weighted_loss, has_aux=True)(
                flat, target, network_of, sample, beta, (None, None) if keys is None else keys
            )
            memory = replay.reprioritize(memory, sample.indices, td_error)
            updates, opt_state = optimizer.update(average(grads), opt_state, flat)
            flat = flat + updates
            target = off_policy.moved_target(target, flat, config.tau, is_due)
            return flat, target, opt_state, memory, sums + seen

        carry = flat, ravel_pytree(state.target_params)[0], state.opt_state, memory, jnp.zeros(2)
        carry = jax.lax.fori_loop(done, due, gradient_step, carry)
        flat, target, opt_state, memory, sums = carry
        moments = state.moments
        if normalizes:
            moments = running.update_moments(moments, trajectory.obs, average)
        state = DQNState(unravel(flat), unravel(target), opt_state, memory, Shared(now), moments)
        loss, value = average(sums)
        count = (due - done).astype(jnp.float32)
        return state, {"losses/td_loss": Mean(loss, count), "losses/q_value": Mean(value, count)}

    return Agent(init, act, greedy, update, sample_noise)
