"""Trust region policy optimization, https://arxiv.org/abs/1502.05477.

Each update is one natural-gradient step on the ratio objective (eq. 14), as long as the KL(old ||
new) allows, then Adam on the critic. Differs from the paper: advantages are GAE's and normalised,
the Fisher matrix is of the whole batch and damped. Policy and critic must share no parameters.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from rljax import networks
from rljax.agents.normalize import normalized_by_config
from rljax.agents.policy_gradient import (
    PolicyGradientConfig,
    acting,
    check_minibatches,
    default_network,
    default_optimizer,
    next_values,
    normalized_advantage,
)
from rljax.config import config, option
from rljax.ops import conjugate_gradient, returns, shuffling
from rljax.types import Agent, EnvSpec, PyTree, identity


@config
class TRPOConfig(PolicyGradientConfig):
    num_steps: int = option(128, "steps of each environment between updates (T)", low=1)
    learning_rate: float = option(1e-3, "step size of the critic's optimizer", above=0)
    anneal_lr: bool = option(False, "let that step size fall linearly to 0 over the run")
    gae_lambda: float = option(0.95, "lambda of generalized advantage estimation", low=0, high=1)
    target_kl: float = option(0.01, "how far a step may take the policy", above=0)
    cg_iterations: int = option(10, "products with the Fisher matrix", low=1)
    damping: float = option(0.1, "added to the diagonal of the Fisher matrix", low=0)
    num_halvings: int = option(10, "of a step that is not accepted, before it is left", low=0)
    update_epochs: int = option(10, "passes of the critic over each rollout", low=1)
    num_minibatches: int = option(4, "parts of a pass", low=1)

    def __post_init__(self):
        super().__post_init__()
        check_minibatches(self)


class TRPOState(NamedTuple):
    params: PyTree
    opt_state: PyTree  # of the critic


def trpo(
    config: TRPOConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a TRPO agent; the arguments are those of `rljax.agents.ppo.ppo`.

    Workers average the gradient, each product with the Fisher matrix, and what the line search
    decides by, so that they take the same step.
    """
    network = network or default_network(config, spec, share=False)
    num_critic_steps = config.update_epochs * config.num_minibatches
    optimizer = optimizer or default_optimizer(config, steps_per_update=num_critic_steps)
    sample_noise, act, greedy = acting(network, spec)

    def init(key):
        params = network.init(key, jnp.zeros((1, *spec.obs_shape)))
        return TRPOState(params, optimizer.init(ravel_pytree(params)[0]))

    def improve(flat, unravel, trajectory, advantage):
        """The step of the policy; the critic's parameters have no gradient, and stay."""
        old_policy = networks.like(trajectory.extras["policy"])
        raw_action = trajectory.extras["raw_action"]
        old_log_prob = old_policy.log_prob(raw_action)

        def policy_of(flat):
            return network.apply(unravel(flat), trajectory.obs)[0]

        def objective(flat):
            policy = policy_of(flat)
            ratio = jnp.exp(policy.log_prob(raw_action) - old_log_prob)
            return (ratio * advantage + config.ent_coef * policy.entropy()).mean()

        def kl(flat):
            return old_policy.kl_divergence(policy_of(flat)).mean()

        def fisher_product(vector):
            product = jax.jvp(jax.grad(kl), (flat,), (vector,))[1]
            return average(product) + config.damping * vector

        gain, gradient = average(jax.value_and_grad(objective)(flat))
        step = conjugate_gradient.natural_step(
            fisher_product, gradient, config.target_kl, config.cg_iterations
        )

        def is_better(flat):
            new_gain, new_kl = average((objective(flat), kl(flat)))
            return (new_gain > gain) & (new_kl <= config.target_kl)

        flat, fraction = conjugate_gradient.line_search(is_better, flat, step, config.num_halvings)
        entropy = policy_of(flat).entropy().mean()
        metrics = {
            "losses/policy_loss": -objective(flat), "losses/kl": kl(flat),
            "losses/entropy": entropy, "losses/step_fraction": fraction,
        }  # fmt: skip
        return flat, average(metrics)

    def fit_critic(carry, rows, unravel, obs, target):
        def loss(flat):
            value = network.apply(unravel(flat), obs[rows])[1]
            return 0.5 * jnp.square(value - target[rows]).mean()

        flat, opt_state = carry
        error, grads = average(jax.value_and_grad(loss)(flat))
        updates, opt_state = optimizer.update(grads, opt_state, flat)
        return (flat + updates, opt_state), error

    def update(state, trajectory, key):
        def value_of(obs):
            return network.apply(state.params, obs)[1]

        value = value_of(trajectory.obs)
        advantage, target = returns.gae(
            trajectory.reward, value, next_values(value_of, trajectory, value),
            trajectory.terminated, trajectory.truncated, config.gamma, config.gae_lambda,
        )  # fmt: skip
        flat, unravel = ravel_pytree(state.params)
        advantage = normalized_advantage(advantage, average)
        flat, metrics = improve(flat, unravel, trajectory, advantage)
        obs = trajectory.obs.reshape(-1, *trajectory.obs.shape[2:])
        rows = shuffling.permutations(key, config.update_epochs, target.size)
        (flat, opt_state), errors = jax.lax.scan(
            partial(fit_critic, unravel=unravel, obs=obs, target=target.reshape(-1)),
            (flat, state.opt_state), rows.reshape(num_critic_steps, -1),
        )  # fmt: skip
        return TRPOState(unravel(flat), opt_state), metrics | {"losses/value_loss": errors.mean()}

    agent = Agent(init, act, greedy, update, sample_noise)
    return normalized_by_config(agent, config, spec, average)
