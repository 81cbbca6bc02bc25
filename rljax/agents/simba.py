"""SAC with the networks of SimBa, https://arxiv.org/abs/2410.09754 (section 4).

Observations are standardized by running statistics, the networks are residual with layer
normalization, and the optimizers are AdamW. Differs from the paper: one gradient step per
environment step instead of two, a fixed gamma, and two critics in every environment.
"""

from collections.abc import Callable
from typing import Any

import optax

from rljax.agents.acting import EXPLORATION_REPEAT_HELP
from rljax.agents.sac import SACConfig, sac
from rljax.config import config, option
from rljax.networks.continuous import action_size
from rljax.networks.encoder import inputs_of
from rljax.networks.residual import ResidualCritic, ResidualPolicy, ResidualTorso
from rljax.types import Agent, EnvSpec, PyTree, Replay, identity


@config
class SimBaConfig(SACConfig):
    """Options of SimBa; the defaults are those of the paper and of its published code."""

    hidden_sizes: tuple[int, ...] = option(
        (512, 512), "width of each residual block of the critics, all equal", low=1
    )
    actor_hidden_sizes: tuple[int, ...] = option(
        (128,), "width of each residual block of the policy, all equal", low=1
    )
    actor_learning_rate: float = option(1e-4, "learning rate of the policy", above=0)
    critic_learning_rate: float = option(1e-4, "learning rate of the critics", above=0)
    alpha_learning_rate: float = option(
        1e-4, "learning rate of the temperature alpha; 0 keeps it fixed", low=0
    )
    initial_alpha: float = option(0.01, "initial temperature alpha of the entropy", above=0)
    target_entropy_per_dimension: float = option(-0.5, "target entropy per action dimension")
    exploration_repeat: int = option(1, EXPLORATION_REPEAT_HELP, low=1)
    weight_decay: float = option(0.01, "weight decay of AdamW", low=0)
    normalize_obs: bool = option(True, "normalize observations by running mean and variance")

    def __post_init__(self):
        super().__post_init__()
        for name in ("hidden_sizes", "actor_hidden_sizes"):
            sizes = getattr(self, name)
            if len(set(sizes)) != 1:
                raise ValueError(
                    f"`{name}` is {sizes}, but residual blocks are added to one vector: give one "
                    "or more numbers, all equal, such as (128, 128)."
                )


def simba(
    config: Any, spec: EnvSpec, *, policy: Any = None, critic: Any = None,
    actor_optimizer: optax.GradientTransformation | None = None,
    critic_optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a SAC agent with residual networks.

    Args:
      config: a `SimBaConfig`; floats may be tracers.
      spec: description of the environment, with continuous actions.
      policy, critic: as for `rljax.agents.sac.sac`; default residual networks.
      actor_optimizer, critic_optimizer: default AdamW.
      replay, average: as for `rljax.agents.sac.sac`.

    Raises:
      ValueError: as `sac`.

    Example:
      >>> import rljax
      >>> env = rljax.build("Pendulum-v1", num_envs=1)
      >>> config = SimBaConfig(hidden_sizes=(64, 64), actor_hidden_sizes=(64,), buffer_size=1_000)
      >>> learner = rljax.make_learner(simba(config, env.spec), env, num_steps=1)
    """

    def torso(hidden_sizes):
        return ResidualTorso(hidden_sizes, config.activation, inputs_of(spec))

    return sac(
        config, spec, replay=replay, average=average,
        policy=policy or ResidualPolicy(torso(config.actor_hidden_sizes), action_size(spec)),
        critic=critic or ResidualCritic(torso(config.hidden_sizes)),
        actor_optimizer=actor_optimizer, critic_optimizer=critic_optimizer,
    )  # fmt: skip
