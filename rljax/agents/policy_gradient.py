"""What the policy-gradient algorithms share: their common options, how they act, their loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.agents.acting import Acting
from rljax.config import RunConfig, config, option
from rljax.networks import policies, recurrent
from rljax.networks.layers import ACTIVATIONS
from rljax.ops import optimizers
from rljax.types import Array, EnvSpec, Metrics, PyTree, Transition, identity

STD_HELP = "of continuous actions: free, or the softplus of a head as itself or as the variance"


@config
class PolicyGradientConfig(RunConfig):
    """Options that mean the same in every algorithm that climbs a policy's gradient."""

    learning_rate: float = option(1e-3, "step size of the optimizer", above=0)
    anneal_lr: bool = option(True, "let the step size fall linearly to 0 over the run")
    max_grad_norm: float = option(0.5, "largest global norm of a gradient", above=0)
    ent_coef: float = option(0.0, "weight of the entropy bonus", low=0)
    normalize_obs: bool = option(False, "show observations by their running mean and variance")
    normalize_reward: bool = option(False, "scale rewards by the spread of returns")
    hidden_sizes: tuple[int, ...] = option((64, 64), "units of each hidden layer", low=1)
    activation: str = option("tanh", "of the hidden layers", choices=tuple(ACTIVATIONS))
    torso: str = option("auto", "conv where it observes an image", choices=("auto", "mlp", "conv"))
    std: str = option("free", STD_HELP, choices=policies.STDS)


@config
class GAEConfig(PolicyGradientConfig):
    """Options that mean the same in every algorithm with a critic and GAE."""

    gae_lambda: float = option(0.95, "lambda of generalized advantage estimation", low=0, high=1)
    vf_coef: float = option(0.5, "weight of the value loss", low=0)
    memory: str = option("none", "what it remembers of an episode", choices=("none", "gru"))
    memory_size: int = option(64, "numbers that it remembers", low=1)


def check_minibatches(config: Any) -> None:
    """That a rollout divides into equal minibatches: of steps, or with a memory of sequences.

    Raises:
      ValueError: naming both numbers.
    """
    batch = config.num_envs * config.num_steps
    if getattr(config, "memory", "none") != "none" and config.num_envs % config.num_minibatches:
        raise ValueError(
            f"`num_minibatches` is {config.num_minibatches}, but with a memory it must divide "
            f"num_envs = {config.num_envs}, as a minibatch holds whole sequences."
        )
    if batch % config.num_minibatches:
        raise ValueError(
            f"`num_minibatches` is {config.num_minibatches}, but it must divide num_envs x "
            f"num_steps = {config.num_envs} x {config.num_steps} = {batch}."
        )


def initial_memory(config: GAEConfig) -> Array | None:
    """Returns the hidden state at the start of an episode, or None without a recurrent network."""
    return None if config.memory == "none" else jnp.zeros(config.memory_size)


def default_network(config: Any, spec: EnvSpec, share: bool = True) -> Any:
    """The network that an agent has where none is given."""
    if getattr(config, "memory", "none") == "gru":
        return recurrent.recurrent_actor_critic_network(
            spec, config.hidden_sizes, config.activation, config.torso, config.std,
            config.memory_size,
        )  # fmt: skip
    return policies.actor_critic_network(
        spec, config.hidden_sizes, config.activation, config.torso, config.std, share
    )


def default_optimizer(
    config: Any, eps: Any = 1e-5, steps_per_update: int = 1
) -> optax.GradientTransformation:
    """Adam, or what `config.optimizer` names, behind clipping, with the rate of the config."""
    rate = config.learning_rate
    if config.anneal_lr:
        rate = optimizers.learning_rate_schedule(rate, config.num_updates, steps_per_update)
    inner = {
        "adam": lambda: optax.adam(rate, eps=eps),
        "rmsprop": lambda: optax.rmsprop(rate, decay=0.99, eps=eps),  # epsilon inside the root
    }[getattr(config, "optimizer", "adam")]
    return optimizers.clipped(inner(), config.max_grad_norm)


def acting(network: Any, spec: EnvSpec, acts_with: str = "params") -> Acting:
    """Acts by sampling the network's policy; remembers the raw action and the policy.

    The raw action is what the policy's density is of, before it is clipped into the box.
    `acts_with` is the field of the state whose parameters explore; `params` are those of `greedy`.
    """

    def sample_noise(key, num_steps):
        return policies.policy_noise(spec, key, num_steps)

    def act(state, obs, noise):
        params = getattr(state, acts_with)
        policy, _ = network.apply(params, obs)
        raw = policies.sample(policy, noise)
        extras = {"raw_action": raw, "policy": policies.parameters(policy)}
        action = policies.to_box(spec, raw)
        return recurrent.with_memory(network, params, obs, action), extras

    def greedy(state, obs, key):
        del key
        action = policies.to_box(spec, network.apply(state.params, obs)[0].mode())
        return recurrent.with_memory(network, state.params, obs, action)

    return Acting(sample_noise, act, greedy)


def actor_critic_loss(
    network: Any, config: Any, params: PyTree, obs: PyTree, raw_action: Array, advantage: Array,
    target: Array, mean: Callable[[Array], Array] = jnp.mean,
) -> tuple[Array, Metrics]:  # fmt: skip
    """The loss of one policy-gradient step, and its parts.

        mean(-log pi(a | s) A + vf_coef (v(s) - target)^2 / 2 - ent_coef H(pi(s)))

    Advantages and targets are data: no gradient goes through them.
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
    """To mean 0 and variance 1, over all workers together; 0, not NaN, where all are equal."""
    center = average(mean(advantage))
    variance = average(mean(jnp.square(advantage - center)))
    return (advantage - center) / jnp.sqrt(variance + 1e-8)


def next_values(value_of: Callable[[PyTree], Array], trajectory: Transition, value: Array) -> Array:
    """The value of each `next_obs`, given those of each `obs`. `[T, B] -> [T, B]`.

    Within an episode the next observation of one step is the observation of the following one,
    whose value is known. What is left is the end of the trajectory, and each observation at which
    a time limit cut an episode: these are evaluated one an environment at a time, for as long as
    there are any (a `while_loop`, which unlike `cond` stays lazy under `vmap`). Where an episode
    terminated, the number is of no meaning, as no value lies beyond.
    """
    last = jax.tree.map(lambda x: x[-1], trajectory.next_obs)
    following = jnp.concatenate([value[1:], value_of(last)[None]])
    pending = trajectory.truncated.at[-1].set(False)
    environments = jnp.arange(value.shape[1])

    def evaluate_one_each(carry):
        following, pending = carry
        times = pending.argmax(axis=0)
        reached = jax.tree.map(lambda x: x[times, environments], trajectory.next_obs)
        old = following[times, environments]
        new = jnp.where(pending[times, environments], value_of(reached), old)
        following = following.at[times, environments].set(new)
        return following, pending.at[times, environments].set(False)

    return jax.lax.while_loop(
        lambda carry: carry[1].any(), evaluate_one_each, (following, pending)
    )[0]
