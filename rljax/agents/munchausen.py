"""Munchausen DQN, https://arxiv.org/abs/2007.14430 (eq. 2): rewards with a scaled log-policy added.

The policy is the softmax of the target network's values; the target is that of soft Q-learning.
Differs from the paper, as for `rljax.agents.dqn`: 3-step returns. Replay holds the sum of their
rewards, so the log-policy is added to the first reward alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from rljax.agents.dqn import DQNConfig, Objective, QLoss, dqn
from rljax.config import config, option
from rljax.ops import td
from rljax.ops.observations import legal_values
from rljax.types import Agent, Array, EnvSpec, PyTree, Replay, identity


@config
class MunchausenConfig(DQNConfig):
    temperature: float = option(0.03, "temperature tau of the softmax policy", above=0)
    munchausen_coef: float = option(0.9, "weight alpha of the log-policy in the reward", low=0)
    munchausen_clip: float = option(-1.0, "lower bound l0 of tau times the log-policy")

    def __post_init__(self):
        super().__post_init__()
        if self.double:
            raise ValueError(
                "`double` is True, but Munchausen DQN bootstraps from the expectation over all "
                "actions and selects none: set it to False."
            )


def munchausen_objective(
    temperature: Any, coefficient: Any, log_policy_floor: Any, loss: Callable[[Array], Array],
    spec: EnvSpec,
) -> Objective:  # fmt: skip
    """`r + alpha max(tau log pi(a|s), l0) + gamma sum_a' pi(a'|s') (Q - tau log pi)(s', a')`.

    With n-step returns r is their discounted sum, gamma becomes gamma^n, and s' is n steps later.
    """

    legal = partial(legal_values, spec)

    def q_loss(online, target, transitions, discount):
        q = td.chosen(online(transitions.obs), transitions.action)
        bonus = td.munchausen_bonus(
            legal(transitions.obs, target(transitions.obs)), transitions.action, temperature,
            log_policy_floor,
        )  # fmt: skip
        next_q = legal(transitions.next_obs, target(transitions.next_obs))
        next_value = td.soft_value(next_q, temperature)
        reward = transitions.reward + coefficient * bonus
        td_target = td.td_target(reward, transitions.terminated, discount, next_value)
        td_error = jax.lax.stop_gradient(td_target) - q
        return QLoss(loss(td_error), td_error, q)

    return Objective(lambda outputs: outputs, q_loss)


def munchausen(
    config: MunchausenConfig, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    loss: Callable[[Array], Array] | None = None, average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a Munchausen DQN agent.

    Args:
      config: a `MunchausenConfig`; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs[..., *obs_shape] -> [..., A]`.
      optimizer, replay, average: as for `rljax.agents.dqn.dqn`.
      loss: `td_error[N] -> loss[N]`.

    Raises:
      ValueError: as `dqn`.
    """
    objective = munchausen_objective(
        config.temperature, config.munchausen_coef, config.munchausen_clip,
        loss or td.LOSSES[config.loss], spec,
    )  # fmt: skip
    return dqn(
        config, spec, network=network, optimizer=optimizer, replay=replay, objective=objective,
        average=average,
    )  # fmt: skip
