"""Shared parts of the policy-gradient algorithms: options, networks, acting, advantages, loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.agents.acting import Acting
from rljax.agents.minibatches import GRADIENT_STEPS, gradient_steps_per_update
from rljax.config import RunConfig, config, option
from rljax.networks import actor_critic, policies, recurrent
from rljax.networks.cells import MEMORIES
from rljax.networks.layers import ACTIVATIONS
from rljax.networks.masking import masked
from rljax.ops import optimizers, returns
from rljax.ops.diagnostics import action_saturation, explained_variance
from rljax.types import Array, EnvSpec, Metrics, PyTree, Transition, identity

STD_HELP = "std of a Gaussian policy: a free parameter or a softplus head"
TORSO_HELP = "feature network: auto uses a convolution for images"
MEMORY_HELP = "recurrent layer of the policy and value network"


@config
class PolicyGradientConfig(RunConfig):
    """Options that all policy-gradient algorithms share."""

    learning_rate: float = option(1e-3, "learning rate of the optimizer", above=0)
    anneal_lr: bool = option(True, "anneal the learning rate linearly to 0")
    max_grad_norm: float = option(0.5, "maximum global norm of the gradient", above=0)
    ent_coef: float = option(0.0, "entropy bonus coefficient", low=0)
    normalize_obs: bool = option(True, "normalize observations by running mean and variance")
    normalize_reward: bool = option(
        True, "scale rewards by the standard deviation of the discounted return"
    )
    hidden_sizes: tuple[int, ...] = option((64, 64), "units of each hidden layer", low=1)
    activation: str = option("tanh", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    torso: str = option("auto", TORSO_HELP, choices=("auto", "mlp", "conv"))
    std: str = option("free", STD_HELP, choices=actor_critic.STDS)

    def counts(self) -> dict[str, int]:
        gradient_steps = self.num_updates * gradient_steps_per_update(self)
        name = GRADIENT_STEPS if hasattr(self, "update_epochs") else "gradient steps"
        return super().counts() | {name: gradient_steps}


@config
class GAEConfig(PolicyGradientConfig):
    """Options of the algorithms with a critic and generalized advantage estimation."""

    gae_lambda: float = option(0.95, "lambda of generalized advantage estimation", low=0, high=1)
    vf_coef: float = option(0.5, "value loss coefficient", low=0)
    memory: str = option("none", MEMORY_HELP, choices=MEMORIES)
    memory_size: int = option(64, "units of the recurrent layer", low=1)


def memory_size(config: Any) -> int:
    """Returns the size of the memory that an agent carries, 0 without a memory."""
    cell = MEMORIES[getattr(config, "memory", "none")]
    return cell(config.memory_size).memory_size if cell else 0


def initial_memory(config: Any, spec: EnvSpec) -> Array | None:
    """Returns the hidden state at the start of an episode, or None without a recurrent network."""
    del spec
    return jnp.zeros(memory_size(config)) if memory_size(config) else None


def default_network(config: Any, spec: EnvSpec, share: bool = True) -> Any:
    """Returns the actor-critic that a config describes; `share` as in `ActorCritic`."""
    if memory_size(config):
        return recurrent.recurrent_actor_critic_network(
            spec, config.hidden_sizes, config.activation, config.torso, config.std,
            config.memory_size, config.memory,
        )  # fmt: skip
    return actor_critic.actor_critic_network(
        spec, config.hidden_sizes, config.activation, config.torso, config.std, share
    )


def network_or_default(network: Any, config: Any, spec: EnvSpec, share: bool = True) -> Any:
    """Returns `network` after checking it, or the default network if it is None.

    Where observations have an action mask, the policy gives illegal actions the probability 0.

    Raises:
      ValueError: it is not an actor-critic for `spec` (see `networks.check_actor_critic`), or the
        size of its hidden state is not that of the config.
    """
    if network is None:
        return masked(default_network(config, spec, share), spec)
    actor_critic.check_actor_critic(network, spec)
    given, expected = actor_critic.memory_size_of(network), memory_size(config)
    if given != expected:
        raise ValueError(
            f"`network` has a hidden state of size {given}, but the agent carries one of size "
            f'{expected}: set memory="gru" and memory_size={given} for a recurrent network (a2c, '
            "a3c, ppo and dppo have these options), or give a network that matches."
        )
    return masked(network, spec)


def learning_rate(config: Any) -> Any:
    """Returns the learning rate that a config describes: a number, or an annealing schedule."""
    if not config.anneal_lr:
        return config.learning_rate
    return optimizers.learning_rate_schedule(
        config.learning_rate, config.num_updates, gradient_steps_per_update(config)
    )


def default_optimizer(config: Any, eps: Any = 1e-5) -> optax.GradientTransformation:
    """Returns Adam, or `config.optimizer`, with clipped gradients and annealed learning rate.

    Args:
      config: with `learning_rate`, `anneal_lr`, `max_grad_norm` and, if any, `optimizer`.
      eps: epsilon of the optimizer; RMSProp adds it inside the square root.
    """
    rate = learning_rate(config)
    if getattr(config, "optimizer", "adam") == "rmsprop":
        inner = optax.rmsprop(rate, decay=0.99, eps=eps)
    else:
        inner = optax.adam(rate, eps=eps)
    return optimizers.clipped(inner, config.max_grad_norm)


def optimizer_or_default(
    optimizer: Any, config: Any, eps: Any = 1e-5
) -> tuple[optax.GradientTransformation, Callable[[PyTree], Metrics]]:
    """Returns `optimizer` after checking it, or `default_optimizer` if it is None.

    The second result reports its learning rate, see `optimizers.learning_rate_metric`.

    Raises:
      ValueError: it is not an optax optimizer.
    """
    if optimizer is None:
        rate_metric = optimizers.learning_rate_metric(learning_rate(config))
        return default_optimizer(config, eps), rate_metric
    optimizers.check_optimizer(optimizer)
    return optimizer, optimizers.learning_rate_metric()


def stochastic_policy(
    network: Any, spec: EnvSpec, sequences: recurrent.Sequences, acts_with: str = "params"
) -> Acting:
    """Acts by sampling the policy of a network; `greedy` takes the mode of the policy.

    Args:
      network: flax module, `obs -> (policy, value)`.
      spec: description of the environment.
      sequences: `recurrent.sequences(network, spec)`.
      acts_with: field of the agent's state with the parameters that act; `greedy` uses `params`.

    Returns:
      An `Acting`. The extras hold `raw_action`, the action before it is clipped to the box, and
      `policy`, the parameters of its distribution (`policies.parameters`).
    """

    def sample_noise(key, num_steps):
        return policies.policy_noise(spec, key, num_steps)

    def act(state, obs, noise):
        params = getattr(state, acts_with)
        policy, _ = network.apply(params, obs)
        raw_action = policies.sample(policy, noise)
        extras = {"raw_action": raw_action, "policy": policies.parameters(policy)}
        action = policies.to_box(spec, raw_action)
        return sequences.with_memory(params, obs, action), extras

    def greedy(state, obs, key):
        del key
        action = policies.to_box(spec, network.apply(state.params, obs)[0].mode())
        return sequences.with_memory(state.params, obs, action)

    return Acting(sample_noise, act, greedy)


def trajectory_values(network: Any, params: PyTree, trajectory: Transition) -> tuple[Array, Array]:
    """Returns v(obs) and v(next_obs) of a trajectory, `[T, B]` each; see `returns.next_values`."""

    def value_of(obs):
        return network.apply(params, obs)[1]

    value = value_of(trajectory.obs)
    return value, returns.next_values(value_of, trajectory, value)


def estimate_advantages(
    network: Any, config: Any, params: PyTree, trajectory: Transition
) -> tuple[Array, Array, Array]:
    """Returns values, GAE advantages and value targets of a trajectory, `[T, B]` each."""
    value, next_value = trajectory_values(network, params, trajectory)
    advantage, target = returns.gae(
        trajectory.reward, value, next_value, trajectory.terminated, trajectory.truncated,
        config.gamma, config.gae_lambda,
    )  # fmt: skip
    return value, advantage, target


def rollout_metrics(
    spec: EnvSpec, raw_action: Array, value: Array, target: Array,
    average: Callable[[PyTree], PyTree] = identity,
) -> Metrics:  # fmt: skip
    """Returns the metrics of a rollout `[T, B]` before the update.

    Args:
      spec: description of the environment.
      raw_action: actions before they are clipped to the box.
      value: value estimates before the update.
      target: value targets.
      average: mean over workers.
    """
    metrics: dict[str, Any] = {
        "losses/explained_variance": explained_variance(value, target, average)
    }
    if not spec.num_actions:
        metrics["charts/action_saturation"] = average(action_saturation(raw_action))
    return metrics


def actor_critic_loss(
    network: Any, config: Any, params: PyTree, obs: PyTree, raw_action: Array, advantage: Array,
    target: Array, mean: Callable[[Array], Array] = jnp.mean,
) -> tuple[Array, Metrics]:  # fmt: skip
    """The actor-critic loss.

        mean(-log pi(a | s) A + vf_coef (v(s) - target)^2 / 2 - ent_coef H(pi(s)))

    Args:
      network: flax module, `obs -> (policy, value)`.
      config: with `vf_coef` and `ent_coef`.
      params: parameters of the network.
      obs: network inputs `[...]`.
      raw_action: actions before they are clipped to the box.
      advantage: A, without gradient.
      target: value targets, without gradient.
      mean: mean over the samples.

    Returns:
      The loss `[]` and metrics.
    """
    policy, value = network.apply(params, obs)
    advantage, target = jax.lax.stop_gradient((advantage, target))
    policy_loss = mean(-policy.log_prob(raw_action) * advantage)
    value_loss = mean(0.5 * jnp.square(value - target))
    entropy = mean(policy.entropy())
    total = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
    return total, {
        "losses/policy_loss": policy_loss, "losses/value_loss": value_loss,
        "losses/entropy": entropy,
    }  # fmt: skip


def normalized_advantage(
    advantage: Array, average: Callable[[PyTree], PyTree] = identity,
    mean: Callable[[Array], Array] = jnp.mean,
) -> Array:  # fmt: skip
    """Returns advantages of mean 0 and variance 1 over all workers; 0 where all are equal.

    Args:
      advantage: `[...]`.
      average: mean over workers.
      mean: mean over the samples of one worker.

    Example:
      >>> normalized_advantage(jnp.array([1.0, 3.0]))
      Array([-1.,  1.], dtype=float32)
    """
    center = average(mean(advantage))
    variance = average(mean(jnp.square(advantage - center)))
    return (advantage - center) / jnp.sqrt(variance + 1e-8)
