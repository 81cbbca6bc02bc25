"""C51, https://arxiv.org/abs/1707.06887 (algorithm 1), and Rainbow.

A network outputs the probabilities of evenly spaced returns for each action; the loss is the
cross-entropy to the projected Bellman target. Rainbow, https://arxiv.org/abs/1710.02298, is C51
with the other five extensions of DQN; its defaults here are smaller than the paper's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax.agents.dqn import Objective, QConfig, QLoss, dqn
from rljax.config import config, option
from rljax.ops import distributional, td
from rljax.ops.observations import legal_values
from rljax.types import Agent, Array, EnvSpec, PyTree, Replay, identity


@config
class C51Config(QConfig):
    num_atoms: int = option(51, "number of atoms of the return distribution", low=2)
    v_min: float = option(-100.0, "smallest return of the support")
    v_max: float = option(100.0, "largest return of the support")

    def __post_init__(self):
        super().__post_init__()
        bounds = self.v_min, self.v_max
        if all(isinstance(x, (int, float, np.number)) for x in bounds) and self.v_min >= self.v_max:
            raise ValueError(
                f"`v_min` is {self.v_min}, but it must be below `v_max`, which is {self.v_max}."
            )


@config
class RainbowConfig(C51Config):
    double: bool = option(True, "double DQN: select the next action with the online network")
    dueling: bool = option(True, "dueling network: separate value and advantage streams")
    noisy: bool = option(True, "NoisyNet exploration instead of epsilon-greedy")
    prioritized: bool = option(True, "prioritized experience replay instead of uniform")
    priority_exponent: float = option(
        0.5, "priority exponent alpha; 0 samples uniformly", low=0, high=1
    )


def categorical_objective(
    support: Array, bootstrap: Callable[[Array, Array], Array], spec: EnvSpec
) -> Objective:
    """Cross-entropy of the logits of the returns in `support[K]` to the projected target.

    The priority is the Kullback-Leibler divergence from the target, as in Rainbow.
    """

    legal = partial(legal_values, spec)

    def action_values(logits):
        return (jax.nn.softmax(logits) * support.reshape(*(1,) * (logits.ndim - 1), -1)).sum(-1)

    def loss(online, target, transitions, discount):
        logits = td.chosen(online(transitions.obs), transitions.action)
        next_logits = target(transitions.next_obs)
        next_action = bootstrap(
            legal(transitions.next_obs, action_values(online(transitions.next_obs))),
            legal(transitions.next_obs, action_values(next_logits)),
        )
        projection = distributional.categorical_projection(
            jax.nn.softmax(td.chosen(next_logits, next_action)), transitions.reward,
            jnp.where(transitions.terminated, 0.0, discount), support,
        )  # fmt: skip
        projection = jax.lax.stop_gradient(projection)
        cross_entropy = distributional.categorical_loss(logits, projection)
        divergence = cross_entropy + jax.scipy.special.xlogy(projection, projection).sum(axis=-1)
        return QLoss(cross_entropy, jnp.maximum(divergence, 0.0), action_values(logits))

    return Objective(action_values, loss, num_outputs=support.size)


def c51(
    config: C51Config, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    bootstrap: Callable[[Array, Array], Array] | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a C51 agent, or with a `RainbowConfig` a Rainbow agent.

    Args:
      config: a `C51Config`; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs[..., *obs_shape] -> logits[..., A, num_atoms]`.
      optimizer, replay, bootstrap, average: as for `rljax.agents.dqn.dqn`.

    Raises:
      ValueError: as `dqn`.
    """
    support = jnp.linspace(config.v_min, config.v_max, config.num_atoms, dtype=jnp.float32)
    objective = categorical_objective(
        support, bootstrap or td.action_selection(config.double), spec
    )
    return dqn(
        config, spec, network=network, optimizer=optimizer, replay=replay, objective=objective,
        average=average,
    )  # fmt: skip
