"""Munchausen DQN, https://arxiv.org/abs/2007.14430 (eq. 2): rewards with a scaled log-policy added.

The policy is the softmax of the target network's values; the target is that of soft Q-learning.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from rljax.agents.dqn import DQNConfig, Objective, dqn
from rljax.config import config, option
from rljax.ops import td
from rljax.types import Agent, Array, EnvSpec, PyTree, Replay, identity


@config
class MunchausenConfig(DQNConfig):
    temperature: float = option(0.03, "tau, of the softmax policy", above=0)
    munchausen_coef: float = option(0.9, "alpha, weight of the log-policy in rewards", low=0)
    munchausen_clip: float = option(-1.0, "l0, the least that the log-policy times tau counts for")

    def __post_init__(self):
        super().__post_init__()
        if self.n_step > 1:
            raise ValueError(
                f"`n_step` is {self.n_step}, but munchausen adds to the reward of every step what "
                "replay does not keep of the later ones: leave it at 1."
            )
        if self.double:
            raise ValueError(
                "`double` is True, but munchausen bootstraps from all actions and not from one: "
                "leave it False."
            )


def munchausen_objective(
    temperature: Any, coefficient: Any, least: Any, loss: Callable[[Array], Array]
) -> Objective:
    """`r + alpha max(tau log pi(a|s), l0) + gamma sum_a' pi(a'|s') (Q - tau log pi)(s', a')`."""

    def errors(online, target, batch, discount):
        value = td.chosen(online(batch.obs), batch.action)
        bonus = td.munchausen_bonus(target(batch.obs), batch.action, temperature, least)
        beyond = td.soft_value(target(batch.next_obs), temperature)
        reward = batch.reward + coefficient * bonus
        goal = td.td_target(reward, batch.terminated, discount, beyond)
        td_error = jax.lax.stop_gradient(goal) - value
        return loss(td_error), td_error, value

    return Objective(lambda outputs: outputs, errors)


def munchausen(
    config: MunchausenConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    loss: Callable[[Array], Array] | None = None, average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a Munchausen DQN agent; the arguments are those of `rljax.agents.dqn.dqn`."""
    objective = munchausen_objective(
        config.temperature, config.munchausen_coef, config.munchausen_clip,
        loss or td.LOSSES[config.loss],
    )  # fmt: skip
    return dqn(
        config, spec, network=network, optimizer=optimizer, replay=replay, objective=objective,
        average=average,
    )  # fmt: skip
