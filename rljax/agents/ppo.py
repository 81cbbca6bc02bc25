"""Proximal policy optimization (PPO), https://arxiv.org/abs/1707.06347.

Clipping (eq. 7) and the adaptive KL penalty (eq. 8) are two surrogates. Differs from the paper:
advantages are normalized per minibatch, gradients are clipped by global norm, beta is bounded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.agents.minibatches import check_minibatches, minibatch_indices
from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    GAEConfig,
    network_or_default,
    normalized_advantage,
    optimizer_or_default,
    rollout_metrics,
    stochastic_policy,
)
from rljax.agents.ppo_loss import PPOLoss, checked_loss, mean_kl, ppo_loss, training_batch
from rljax.agents.surrogates import Surrogate, adaptive_kl, check_surrogate, clip
from rljax.config import config, option
from rljax.networks import recurrent
from rljax.ops.gradients import mean_grad
from rljax.ops.optimizers import gradient_norm, norm_of_taken_step, packed, skip_where
from rljax.types import Agent, Array, EnvSpec, Metrics, PyTree, identity


@config
class PPOConfig(GAEConfig):
    num_steps: int = option(256, "rollout length per environment", low=1)
    learning_rate: float = option(5e-4, "learning rate of the optimizer", above=0)
    update_epochs: int = option(10, "epochs over each rollout", low=1)
    num_minibatches: int = option(8, "minibatches per epoch", low=1)
    surrogate: str = option("clip", "surrogate objective of the policy", choices=("clip", "kl"))
    clip_eps: float = option(0.2, "clipping epsilon of the probability ratio", above=0)
    target_kl: float = option(0.01, "target KL divergence of the adaptive penalty", above=0)
    clip_value: bool = option(False, "clip the change of the value by clip_eps in the value loss")

    def __post_init__(self):
        super().__post_init__()
        check_minibatches(self)


class PPOState(NamedTuple):
    params: PyTree
    opt_state: PyTree
    surrogate: PyTree


def ppo(
    config: PPOConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, surrogate: Surrogate | None = None,
    loss: PPOLoss = ppo_loss, average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a PPO agent.

    Args:
      config: hyperparameters; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs -> (distrax policy, value)`; by default made for `spec`.
      optimizer: by default Adam with clipped gradients and annealed learning rate.
      surrogate: by default the one that `config.surrogate` names.
      loss: loss of a minibatch, by default eq. 9.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: the network, the optimizer, the surrogate or the loss has the wrong form.

    Example:
      >>> spec = EnvSpec(obs_shape=(4,), num_actions=2)
      >>> agent = ppo(PPOConfig(), spec, surrogate=clip(0.1), optimizer=optax.adam(1e-3))
      >>> state = jax.eval_shape(agent.init, jax.random.key(0))
      >>> sorted(state.agent.params["params"])
      ['actor', 'critic', 'logits', 'value']
    """
    network = network_or_default(network, config, spec)
    optimizer, rate_metric = optimizer_or_default(optimizer, config)
    surrogate = check_surrogate(surrogate_of(config) if surrogate is None else surrogate)
    is_mean = loss is ppo_loss  # over the rows of a minibatch; that of the user may be anything
    loss = checked_loss(loss, surrogate)
    sequences = recurrent.sequences(network, spec)
    acting = stochastic_policy(network, spec, sequences)

    def init(key):
        params = network.init(key, sequences.example_obs)
        return PPOState(params, optimizer.init(packed(params)[0]), surrogate.init())

    def update(state, trajectory, key):
        """Algorithm 1 of Schulman et al. (2017), for all environments at once."""
        batch = training_batch(network, config, sequences, state.params, trajectory)
        num_items, take = sequences.split(batch)
        start, unpack = packed(state.params)

        def minibatch_loss(learned_params, minibatch):
            params = unpack(learned_params)
            return loss(network, config, params, minibatch, surrogate, state.surrogate, average)

        def minibatch_step(learned, items):
            indices, advantage = items
            minibatch = take(indices)._replace(advantage=advantage)
            grads, metrics = mean_grad(minibatch_loss, learned.params, minibatch, parts)
            metrics = jax.tree.map(lambda x: x.mean(0), metrics)
            return gradient_step(optimizer, surrogate, average, learned, grads, metrics)

        indices = minibatch_indices(config, key, num_items)
        _, advantage_of = sequences.split(batch.advantage)
        normalized = jax.vmap(lambda x: normalized_advantage(advantage_of(x), average))
        advantages = normalized(indices)  # of all minibatches, so that workers average them once
        parts = sequences.num_parts(indices.shape[1], state.params) if is_mean else 1
        start = Learned(start, state.opt_state, jnp.bool_(False))
        learned, metrics = jax.lax.scan(minibatch_step, start, (indices, advantages))
        params, metrics = unpack(learned.params), average(jax.tree.map(jnp.mean, metrics))
        metrics = {
            **metrics, **rate_metric(learned.opt_state),
            **rollout_metrics(spec, batch.raw_action, batch.old_value, batch.target, average),
        }  # fmt: skip
        surrogate_state = surrogate.adapt(state.surrogate, average(mean_kl(network, params, batch)))
        return PPOState(params, learned.opt_state, surrogate_state), metrics

    agent = Agent(init, acting.act, acting.greedy, update, acting.sample_noise)
    return normalized_by_config(agent, config, spec, average)


def surrogate_of(config: PPOConfig) -> Surrogate:
    """Returns the surrogate that `config.surrogate` names."""
    return clip(config.clip_eps) if config.surrogate == "clip" else adaptive_kl(config.target_kl)


class Learned(NamedTuple):
    """What the gradient steps of an update change.

    Attributes:
      params: parameters as `ops.optimizers.packed` returns them.
      opt_state: state of the optimizer.
      stopped: the surrogate has stopped the update, bool.
    """

    params: PyTree
    opt_state: PyTree
    stopped: Array


def gradient_step(
    optimizer: optax.GradientTransformation, surrogate: Surrogate,
    average: Callable[[PyTree], PyTree], learned: Learned, grads: PyTree, metrics: Metrics,
) -> tuple[Learned, Metrics]:  # fmt: skip
    """One optimizer step on a minibatch, skipped once the surrogate has stopped the update."""
    params, opt_state, stopped = learned
    kl = None if surrogate.stop is None else metrics["losses/kl"]
    grads, kl = average((grads, kl))  # together, which devices do in one step
    updates, new_opt_state = optimizer.update(grads, opt_state, params)
    new = optax.apply_updates(params, updates), new_opt_state
    norm = gradient_norm(grads)
    if surrogate.stop is not None:
        stopped = stopped | surrogate.stop(kl)
        new = skip_where(stopped, new, (params, opt_state))
        norm = norm_of_taken_step(grads, stopped)
    new_params, new_opt_state = new
    metrics = {**metrics, "losses/grad_norm": norm}
    return Learned(new_params, new_opt_state, stopped), metrics
