"""Distributed PPO, https://arxiv.org/abs/1707.02286: PPO whose workers average their gradients.

Each worker has its own environments; gradients, the KL, the moments of advantages and of what is
normalised are those of all workers. The penalty is that of section 3 with its hinge, and the rest
of an update is left where the KL is above four targets. Differs from the paper: no worker is left
behind, GAE, minibatches, beta by PPO's rule (x 2, / 2, at 1.5), policy and value stop together.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.agents.ppo import PPOConfig, Surrogate, adaptive_kl, ppo
from rljax.config import config, option
from rljax.types import Agent, EnvSpec, PyTree, identity


@config
class DPPOConfig(PPOConfig):
    surrogate: str = option("hinge", "the objective", choices=("hinge", "kl", "clip"))
    hinge_coef: float = option(1000.0, "weight of the squared KL above two targets", low=0)


def hinged_kl(
    target_kl: Any, hinge_coef: Any = 1000.0, average: Callable[[PyTree], PyTree] = identity
) -> Surrogate:
    """The adaptive KL penalty, with a hinge for policies that go too far and a stop behind it.

        ratio A - beta KL - xi max(0, KL_mean - 2 target)^2,  KL_mean over all workers

    No collective is differentiated: the mean of all workers gives the hinge its size, each
    worker's own KL its slope, so that the average of the gradients is the gradient of the whole.
    """
    inner = adaptive_kl(target_kl)

    def objective(beta, ratio, advantage, kl):
        mean = kl.mean()
        mean += jax.lax.stop_gradient(average(mean) - mean)
        hinge = hinge_coef * jnp.square(jnp.maximum(0.0, mean - 2.0 * target_kl))
        return inner.objective(beta, ratio, advantage, kl) - hinge

    return inner._replace(objective=objective, stop=lambda kl: kl > 4.0 * target_kl)


def dppo(
    config: DPPOConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, surrogate: Surrogate | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a DPPO agent; the arguments are those of `rljax.agents.ppo.ppo`.

    `average` is over workers, `partial(lax.pmean, axis_name=...)` under `pmap`; alone, one worker
    is the whole. `num_envs` are those of one worker.
    """
    if surrogate is None and config.surrogate == "hinge":
        surrogate = hinged_kl(config.target_kl, config.hinge_coef, average)
    return ppo(
        config, spec, network=network, optimizer=optimizer, surrogate=surrogate, average=average
    )
