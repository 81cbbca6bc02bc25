"""Trust region policy optimization (TRPO), https://arxiv.org/abs/1502.05477.

Each update is one natural-gradient step on the surrogate objective (eq. 14) within a KL(old || new)
constraint, then epochs of Adam on the critic. Differs from the paper: GAE advantages, normalized;
the Fisher matrix of the whole batch, damped. Policy and critic must not share parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from rljax.agents.minibatches import check_minibatches, minibatch_indices
from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    PolicyGradientConfig,
    estimate_advantages,
    network_or_default,
    normalized_advantage,
    optimizer_or_default,
    rollout_metrics,
    stochastic_policy,
)
from rljax.config import config, option
from rljax.networks import policies, recurrent
from rljax.ops.conjugate_gradient import line_search, natural_step
from rljax.ops.optimizers import gradient_norm
from rljax.types import (
    Agent,
    Array,
    EnvSpec,
    Metrics,
    PyTree,
    Transition,
    identity,
)


@config
class TRPOConfig(PolicyGradientConfig):
    num_steps: int = option(128, "rollout length per environment", low=1)
    learning_rate: float = option(1e-3, "learning rate of the critic's optimizer", above=0)
    anneal_lr: bool = option(False, "anneal the learning rate linearly to 0")
    gae_lambda: float = option(0.95, "lambda of generalized advantage estimation", low=0, high=1)
    target_kl: float = option(0.01, "maximum KL divergence of a policy step", above=0)
    cg_iterations: int = option(10, "iterations of conjugate gradient", low=1)
    damping: float = option(0.1, "constant added to the diagonal of the Fisher matrix", low=0)
    num_halvings: int = option(10, "maximum step halvings of the line search", low=0)
    update_epochs: int = option(10, "epochs of the critic over each rollout", low=1)
    num_minibatches: int = option(4, "minibatches per epoch", low=1)

    def __post_init__(self):
        super().__post_init__()
        check_minibatches(self)


class TRPOState(NamedTuple):
    """The state of TRPO.

    Attributes:
      params: parameters of policy and critic.
      opt_state: state of the critic's optimizer.
    """

    params: PyTree
    opt_state: PyTree


def trpo(
    config: TRPOConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a TRPO agent.

    Args:
      config: hyperparameters; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs -> (distrax policy, value)`; by default made for `spec`. Policy
        and value must not share parameters.
      optimizer: of the critic, by default Adam with clipped gradients.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`, of gradients, Fisher
        products and line-search statistics, so that all workers take the same step.

    Example:
      >>> agent = trpo(TRPOConfig(target_kl=0.02), EnvSpec(obs_shape=(4,), num_actions=2))
    """
    network = network_or_default(network, config, spec, share=False)
    optimizer, rate_metric = optimizer_or_default(optimizer, config)
    sequences = recurrent.memoryless(spec)
    acting = stochastic_policy(network, spec, sequences)

    def init(key):
        params = network.init(key, sequences.example_obs)
        return TRPOState(params, optimizer.init(ravel_pytree(params)[0]))

    def update(state, trajectory, key):
        """A natural-gradient step of the policy, then minibatch steps of the critic."""
        value, advantage, target = estimate_advantages(network, config, state.params, trajectory)
        flat, unravel = ravel_pytree(state.params)
        advantage = normalized_advantage(advantage, average)
        flat, metrics = policy_step(network, config, unravel, flat, trajectory, advantage, average)
        num_items, take = sequences.split((trajectory.obs, target))

        def value_loss(flat, obs, target):
            value = network.apply(unravel(flat), obs)[1]
            return 0.5 * jnp.square(value - target).mean()

        def critic_step(carry, indices):
            flat, opt_state = carry
            loss, grads = average(jax.value_and_grad(value_loss)(flat, *take(indices)))
            updates, opt_state = optimizer.update(grads, opt_state, flat)
            return (flat + updates, opt_state), (loss, gradient_norm(grads))

        indices = minibatch_indices(config, key, num_items)
        carry = flat, state.opt_state
        (flat, opt_state), (losses, norms) = jax.lax.scan(critic_step, carry, indices)
        raw_action = trajectory.extras["raw_action"]
        metrics = {
            **metrics, "losses/value_loss": losses.mean(),
            "losses/critic_grad_norm": norms.mean(), **rate_metric(opt_state),
            **rollout_metrics(spec, raw_action, value, target, average),
        }  # fmt: skip
        return TRPOState(unravel(flat), opt_state), metrics

    agent = Agent(init, acting.act, acting.greedy, update, acting.sample_noise)
    return normalized_by_config(agent, config, spec, average)


def policy_step(
    network: Any, config: TRPOConfig, unravel: Callable[[Array], PyTree], flat: Array,
    trajectory: Transition, advantage: Array, average: Callable[[PyTree], PyTree],
) -> tuple[Array, Metrics]:  # fmt: skip
    """One step of the policy: natural gradient, scaled to the KL constraint, with line search.

    Args:
      network: flax module, `obs -> (policy, value)`.
      config: hyperparameters.
      unravel: `flat[P] -> params`.
      flat: parameters `[P]`; those of the critic have no gradient and do not change.
      trajectory: rollout `[T, B]`.
      advantage: normalized advantages `[T, B]`.
      average: mean over workers.

    Returns:
      The new parameters `[P]`, and metrics.
    """
    old_policy = policies.like(trajectory.extras["policy"])
    raw_action = trajectory.extras["raw_action"]
    old_log_prob = old_policy.log_prob(raw_action)

    def policy_of(flat):
        return network.apply(unravel(flat), trajectory.obs)[0]

    def surrogate(flat):
        policy = policy_of(flat)
        ratio = jnp.exp(policy.log_prob(raw_action) - old_log_prob)
        return (ratio * advantage + config.ent_coef * policy.entropy()).mean()

    def kl(flat):
        return old_policy.kl_divergence(policy_of(flat)).mean()

    def fisher_product(vector):  # the Fisher matrix is the Hessian of the KL
        product = jax.jvp(jax.grad(kl), (flat,), (vector,))[1]
        return average(product) + config.damping * vector

    old_surrogate, gradient = average(jax.value_and_grad(surrogate)(flat))
    step = natural_step(fisher_product, gradient, config.target_kl, config.cg_iterations)

    def accept(flat):
        new_surrogate, new_kl = average((surrogate(flat), kl(flat)))
        return (new_surrogate > old_surrogate) & (new_kl <= config.target_kl)

    flat, fraction = line_search(accept, flat, step, config.num_halvings)
    entropy = policy_of(flat).entropy().mean()
    metrics = {
        "losses/policy_loss": -surrogate(flat), "losses/kl": kl(flat),
        "losses/entropy": entropy, "losses/step_fraction": fraction,
        "losses/actor_grad_norm": gradient_norm(gradient),
    }  # fmt: skip
    return flat, average(metrics)
