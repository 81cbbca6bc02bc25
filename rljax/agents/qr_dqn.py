"""QR-DQN, https://arxiv.org/abs/1710.10044 (algorithm 1): DQN that learns quantiles of returns."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from rljax.agents.dqn import Objective, QConfig, dqn
from rljax.config import config, option
from rljax.networks import action_values
from rljax.ops import distributional, td
from rljax.types import Agent, Array, EnvSpec, PyTree, Replay, identity


@config
class QRDQNConfig(QConfig):
    num_quantiles: int = option(25, "quantiles of each action's return", low=1)
    kappa: float = option(1.0, "error up to which the loss is square; 0: never", low=0)


def quantile_objective(
    num_quantiles: int, kappa: Any, bootstrap: Callable[..., Array]
) -> Objective:
    """Quantiles at the midpoints, moved to `r + gamma theta(s', a')` by the quantile Huber loss."""
    midpoints = distributional.quantile_midpoints(num_quantiles)

    def values(quantiles):
        return quantiles.mean(axis=-1)

    def errors(online, target, batch, discount):
        quantiles = td.chosen(online(batch.obs), batch.action)
        beyond = target(batch.next_obs)
        action = bootstrap(values(online(batch.next_obs)), values(beyond))
        each = jax.vmap(td.td_target, (None, None, None, 1), 1)
        goal = each(batch.reward, batch.terminated, discount, td.chosen(beyond, action))
        goal = jax.lax.stop_gradient(goal)
        loss = distributional.quantile_huber_loss(quantiles, goal, midpoints, kappa)
        value = values(quantiles)
        return loss, values(goal) - value, value

    return Objective(values, errors)


def qr_dqn(
    config: QRDQNConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    bootstrap: Callable[..., Array] | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a QR-DQN agent.

    The arguments are those of `rljax.agents.dqn.dqn`; a network gives `[..., A, num_quantiles]`.
    """
    network = network or action_values.q_network(
        spec, config.hidden_sizes, config.activation, num_outputs=config.num_quantiles,
        dueling=config.dueling, noisy=config.noisy,
    )  # fmt: skip
    bootstrap = bootstrap or td.action_selection(config.double)
    return dqn(
        config, spec, network=network, optimizer=optimizer, replay=replay,
        objective=quantile_objective(config.num_quantiles, config.kappa, bootstrap),
        average=average,
    )  # fmt: skip
