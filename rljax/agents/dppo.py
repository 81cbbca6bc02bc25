"""Distributed PPO (DPPO), https://arxiv.org/abs/1707.02286: workers average their gradients.

Each worker has its own environments. Gradients, the KL, advantage statistics and normalization
moments are averaged over workers. The KL penalty has the hinge of section 3, and an update stops
once the KL exceeds four targets. Differs from the paper: no gradients are dropped, GAE,
minibatches, PPO's rule for beta (x 2, / 2, at 1.5), policy and value stop together.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.agents.ppo import PPOConfig, ppo
from rljax.agents.ppo_loss import PPOLoss, ppo_loss
from rljax.agents.surrogates import Surrogate, adaptive_kl
from rljax.config import config, option
from rljax.types import Agent, EnvSpec, PyTree, identity


@config
class DPPOConfig(PPOConfig):
    surrogate: str = option(
        "hinge", "surrogate objective of the policy", choices=("hinge", "kl", "clip")
    )
    hinge_coef: float = option(1000.0, "coefficient of the squared KL above two targets", low=0)


def hinged_kl(
    target_kl: Any, hinge_coef: Any = 1000.0, average: Callable[[PyTree], PyTree] = identity
) -> Surrogate:
    """The surrogate with an adaptive KL penalty, a hinge above two targets, and early stopping.

        ratio A - beta KL - xi max(0, mean KL - 2 target)^2

    The mean is over all workers. No collective operation is differentiated: the global mean sets
    the size of the hinge and each worker's own KL its gradient, so the averaged gradient is the
    gradient of the global objective.

    Args:
      target_kl: target of the mean KL of an update; an update stops above four targets.
      hinge_coef: xi, the coefficient of the hinge.
      average: mean over workers.

    Example:
      >>> surrogate = hinged_kl(target_kl=0.01)
      >>> bool(surrogate.stop(0.03)), bool(surrogate.stop(0.05))
      (False, True)
    """
    penalty = adaptive_kl(target_kl)

    def objective(beta, ratio, advantage, kl):
        mean_kl = kl.mean()
        mean_kl += jax.lax.stop_gradient(average(mean_kl) - mean_kl)
        hinge = hinge_coef * jnp.square(jnp.maximum(0.0, mean_kl - 2.0 * target_kl))
        return penalty.objective(beta, ratio, advantage, kl) - hinge

    return penalty._replace(objective=objective, stop=lambda kl: kl > 4.0 * target_kl)


def dppo(
    config: DPPOConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, surrogate: Surrogate | None = None,
    loss: PPOLoss = ppo_loss, average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a DPPO agent.

    Args:
      config: hyperparameters of one worker, such as its `num_envs`; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs -> (distrax policy, value)`; by default made for `spec`.
      optimizer: by default Adam with clipped gradients and annealed learning rate.
      surrogate: by default the one that `config.surrogate` names.
      loss: loss of a minibatch, by default that of PPO.
      average: mean over workers, `partial(lax.pmean, axis_name=...)` under `pmap`.

    Example:
      >>> agent = dppo(DPPOConfig(target_kl=0.02), EnvSpec(obs_shape=(4,), num_actions=2))
    """
    if surrogate is None and config.surrogate == "hinge":
        surrogate = hinged_kl(config.target_kl, config.hinge_coef, average)
    return ppo(
        config, spec, network=network, optimizer=optimizer, surrogate=surrogate, loss=loss,
        average=average,
    )  # fmt: skip
