"""The loss of PPO and the data that it is computed from; see `rljax.agents.ppo`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp

from rljax.agents.policy_gradient import estimate_advantages
from rljax.agents.surrogates import Surrogate
from rljax.networks import policies
from rljax.networks.recurrent import Sequences
from rljax.ops.policy import clipped_value_loss
from rljax.types import Array, Metrics, PyTree, Transition, identity


class Minibatch(NamedTuple):
    """The data of one gradient step, `[N, *]`; with a recurrent network `[T, N, *]`.

    Attributes:
      obs: network inputs.
      raw_action: actions before they are clipped to the box.
      old_policy: parameters of the policy that acted (`policies.parameters`).
      old_log_prob: log pi_old(a | s).
      old_value: value estimates before the update.
      advantage: advantages; in the minibatch of a loss, normalized.
      target: value targets.
    """

    obs: PyTree
    raw_action: Array
    old_policy: tuple[Array, ...]
    old_log_prob: Array
    old_value: Array
    advantage: Array
    target: Array


def training_batch(
    network: Any, config: Any, sequences: Sequences, params: PyTree,
    trajectory: Transition,
) -> Minibatch:  # fmt: skip
    """Returns a whole trajectory `[T, B]` as training data, with advantages and targets."""
    old_policy, raw_action = trajectory.extras["policy"], trajectory.extras["raw_action"]
    value, advantage, target = estimate_advantages(network, config, params, trajectory)
    old_log_prob = policies.like(old_policy).log_prob(raw_action)
    obs = sequences.training_inputs(trajectory)
    return Minibatch(obs, raw_action, old_policy, old_log_prob, value, advantage, target)


def mean_kl(network: Any, params: PyTree, batch: Minibatch) -> Array:
    """Returns the mean of KL(pi_old || pi) over a batch, `[]`."""
    policy, _ = network.apply(params, batch.obs)
    return policies.like(batch.old_policy).kl_divergence(policy).mean()


class PPOLoss(Protocol):
    def __call__(
        self, network: Any, config: Any, params: PyTree, batch: Minibatch, surrogate: Surrogate,
        surrogate_state: PyTree, average: Callable[[PyTree], PyTree], /,
    ) -> tuple[Array, Metrics]:  # fmt: skip
        """Returns the loss of a minibatch, and metrics.

        Args:
          network: flax module; `network.apply(params, batch.obs)` gives `(policy, value)`.
          config: hyperparameters of the agent.
          params: parameters that the loss is differentiated by.
          batch: data of the gradient step.
          surrogate: surrogate objective of the policy.
          surrogate_state: state of the surrogate.
          average: mean over workers, for statistics of the minibatch.

        Returns:
          The loss `[]`, and metrics `[]` by name. If the surrogate has a `stop`, the metrics must
          include `losses/kl`, the mean of KL(pi_old || pi).
        """
        ...


def ppo_loss(
    network: Any, config: Any, params: PyTree, batch: Minibatch, surrogate: Surrogate,
    surrogate_state: PyTree, average: Callable[[PyTree], PyTree] = identity,
) -> tuple[Array, Metrics]:  # fmt: skip
    """The loss of PPO (eq. 9, negated), with the arguments of `PPOLoss`.

        mean(-surrogate + vf_coef (v(s) - target)^2 / 2 - ent_coef H(pi(s)))

    With `config.clip_value` the value loss is that of `ops.policy.clipped_value_loss`.
    """
    policy, value = network.apply(params, batch.obs)
    ratio = jnp.exp(policy.log_prob(batch.raw_action) - batch.old_log_prob)
    kl = policies.like(batch.old_policy).kl_divergence(policy)
    policy_loss = -surrogate.objective(surrogate_state, ratio, batch.advantage, kl).mean()
    if config.clip_value:
        value_loss = clipped_value_loss(value, batch.old_value, batch.target, config.clip_eps)
        value_loss = value_loss.mean()
    else:
        value_loss = 0.5 * jnp.square(value - batch.target).mean()
    entropy = policy.entropy().mean()
    total = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
    metrics = {
        "losses/policy_loss": policy_loss, "losses/value_loss": value_loss,
        "losses/entropy": entropy, "losses/kl": kl.mean(),
    }  # fmt: skip
    if surrogate.clip_eps is not None:
        metrics["losses/clip_fraction"] = (jnp.abs(ratio - 1.0) > surrogate.clip_eps).mean()
    return total, metrics


def checked_loss(loss: PPOLoss, surrogate: Surrogate) -> PPOLoss:
    """Returns the same loss with a check of its result, which costs nothing once it is traced.

    Raises:
      ValueError: when the loss is traced, if its result is not a pair (scalar, metrics), or lacks
        `losses/kl` where the surrogate has a `stop`.
    """

    def checked(*args):
        result = loss(*args)
        is_pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)
        if not is_pair or jnp.shape(result[0]) != ():
            raise ValueError(
                f"`loss` returns {_described(result)}, but it must return a pair (scalar, metrics),"
                ' such as (loss.mean(), {"losses/policy_loss": policy_loss}).'
            )
        if surrogate.stop is not None and "losses/kl" not in result[1]:
            raise ValueError(
                f"`loss` returns the metrics {sorted(result[1])}, but the surrogate stops by "
                "`losses/kl`: add it to the metrics, or give a surrogate without `stop`."
            )
        return result

    return checked


def _described(result: Any) -> str:
    if isinstance(result, tuple):
        return f"a tuple ({', '.join(_described(item) for item in result)})"
    if hasattr(result, "shape"):
        return f"an array of shape {result.shape}"
    return f"a {type(result).__name__}"
