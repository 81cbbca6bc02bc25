"""QR-DQN, https://arxiv.org/abs/1710.10044 (algorithm 1): DQN with quantile regression."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from rljax.agents.dqn import Objective, QConfig, QLoss, dqn
from rljax.config import config, option
from rljax.ops import distributional, td
from rljax.ops.observations import legal_values
from rljax.types import Agent, Array, EnvSpec, PyTree, Replay, identity


@config
class QRDQNConfig(QConfig):
    num_quantiles: int = option(25, "number of quantiles of each action's return", low=1)
    kappa: float = option(1.0, "threshold of the quantile Huber loss; 0 is absolute error", low=0)


def quantile_objective(
    num_quantiles: int, kappa: Any, bootstrap: Callable[[Array, Array], Array],
    spec: EnvSpec,
) -> Objective:  # fmt: skip
    """The quantile Huber loss of the quantiles of Q(s, a) to `r + gamma theta(s', a')`."""
    midpoints = distributional.quantile_midpoints(num_quantiles)

    legal = partial(legal_values, spec)

    def action_values(quantiles):
        return quantiles.mean(axis=-1)

    def loss(online, target, transitions, discount):
        quantiles = td.chosen(online(transitions.obs), transitions.action)
        next_quantiles = target(transitions.next_obs)
        next_action = bootstrap(
            legal(transitions.next_obs, action_values(online(transitions.next_obs))),
            legal(transitions.next_obs, action_values(next_quantiles)),
        )
        td_target = jax.vmap(td.td_target, (None, None, None, 1), 1)(
            transitions.reward, transitions.terminated, discount,
            td.chosen(next_quantiles, next_action),
        )  # fmt: skip
        td_target = jax.lax.stop_gradient(td_target)
        huber = distributional.quantile_huber_loss(quantiles, td_target, midpoints, kappa)
        q = action_values(quantiles)
        return QLoss(huber, action_values(td_target) - q, q)

    return Objective(action_values, loss, num_outputs=num_quantiles)


def qr_dqn(
    config: QRDQNConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    bootstrap: Callable[[Array, Array], Array] | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a QR-DQN agent.

    Args:
      config: a `QRDQNConfig`; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs[..., *obs_shape] -> quantiles[..., A, num_quantiles]`.
      optimizer, replay, bootstrap, average: as for `rljax.agents.dqn.dqn`.

    Raises:
      ValueError: as `dqn`.
    """
    objective = quantile_objective(
        config.num_quantiles, config.kappa, bootstrap or td.action_selection(config.double), spec
    )
    return dqn(
        config, spec, network=network, optimizer=optimizer, replay=replay, objective=objective,
        average=average,
    )  # fmt: skip
