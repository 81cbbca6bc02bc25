"""The algorithms. `AGENTS` maps the name of each to its config, its maker and its properties."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from rljax.agents import (
    a2c,
    a3c,
    actor_critic,
    alphazero,
    c51,
    continuous,
    ddpg,
    discrete_sac,
    dppo,
    dqn,
    impala,
    mbpo,
    munchausen,
    muzero,
    pets,
    ppo,
    pqn,
    qr_dqn,
    reinforce,
    sac,
    simba,
    td3,
    trpo,
)
from rljax.agents.policy_gradient import initial_memory
from rljax.agents.tabular import (
    dyna,
    dynamic_programming,
    n_step,
    prediction,
    prioritized_sweeping,
    q_learning,
    traces,
)
from rljax.ops.precision import in_32_bits
from rljax.types import EnvSpec, PyTree

FAMILIES = (
    "tabular", "value-based", "policy gradient", "off-policy actor-critic", "model-based",
)  # fmt: skip


class AgentRow(NamedTuple):
    """One algorithm and its properties.

    Attributes:
      config: config class, decorated with `rljax.config.config`.
      make: `(config, spec, **pieces) -> Agent`.
      about: the algorithm in a few words, at most 55 characters.
      family: one of `FAMILIES`.
      actions: kinds of actions that it supports, "discrete" and "continuous".
      tabular: it stores one table entry per state, so it needs numbered states.
      on_policy: it evaluates the policy that collects the data; None if it uses no data.
      model_based: it plans with a model of the environment.
      learns: what it represents: "value", "policy", "policy and value" or "model".
      update_unit: data of one update: "step", "n steps", "episode", "rollout", "batch" (sampled
        from a replay buffer) or "sweep" (over all states of a model).
      memory: `(config, spec) -> initial memory` of a recurrent agent, or of exploration noise;
        None if the agent never has one.
      plans_ahead: it steps the environment itself while it plans, and observes its state.
      players: numbers of players of the environments that it supports.
    """

    config: type
    make: Callable[..., Any]
    about: str = ""
    family: str = "value-based"
    actions: tuple[str, ...] = ("discrete", "continuous")
    tabular: bool = False
    on_policy: bool | None = True
    model_based: bool = False
    learns: str = "value"
    update_unit: str = "rollout"
    memory: Callable[[Any, EnvSpec], PyTree | None] | None = None
    plans_ahead: bool = False
    players: tuple[int, ...] = (1,)

    @in_32_bits
    def initial_memory(self, config: Any, spec: EnvSpec) -> PyTree | None:
        """Returns the memory at the start of an episode, or None if the agent has no memory."""
        return self.memory(config, spec) if self.memory else None

    def check(self, name: str, spec: EnvSpec) -> None:
        """Checks that the algorithm supports an environment.

        Raises:
          ValueError: it does not support the number of players or the kind of actions, or it is
            tabular and the states are not numbered.
        """
        if spec.num_players not in self.players:
            several = [name for name, row in AGENTS.items() if 2 in row.players]
            raise ValueError(
                f"`{name}` needs an environment of one player, but {spec.env_id} is a game of "
                f"{spec.num_players}: use {' or '.join(several)}, or train against an opponent "
                'with `--env-params.opponent random`, in Python env_params={"opponent": "random"}.'
            )
        kind = "discrete" if spec.num_actions else "continuous"
        if kind not in self.actions:
            others = {"discrete": "dqn, ppo or discrete_sac", "continuous": "sac, td3 or ppo"}
            raise ValueError(
                f"`{name}` needs {self.actions[0]} actions, but {spec.env_id} has {kind} actions: "
                f"use an agent such as {others[kind]}. `rljax list` shows all agents."
            )
        if self.tabular and not spec.num_states:
            raise ValueError(
                f"`{name}` is tabular and needs numbered states, but {spec.env_id} has "
                f"observations of shape {spec.obs_shape}: use a tabular environment such as "
                "rljax/Maze, or a network agent such as dqn."
            )


_control = partial(
    AgentRow, family="tabular", actions=("discrete",), tabular=True, update_unit="step"
)
_planning = partial(
    AgentRow, family="model-based", actions=("discrete",), tabular=True, model_based=True,
    update_unit="step",
)  # fmt: skip
_replay = partial(
    AgentRow, family="value-based", actions=("discrete",), on_policy=False, update_unit="batch"
)
_continuous = partial(
    AgentRow, family="off-policy actor-critic", actions=("continuous",), on_policy=False,
    learns="policy and value", update_unit="batch",
)  # fmt: skip
_actor_critic = partial(AgentRow, family="policy gradient", learns="policy and value")

AGENTS = {
    "q_learning": _control(
        q_learning.ControlConfig, q_learning.q_learning, "off-policy TD control", on_policy=False
    ),
    "double_q_learning": _control(
        q_learning.ControlConfig, q_learning.double_q_learning,
        "Q-learning with two tables, against maximization bias", on_policy=False,
    ),
    "sarsa": _control(n_step.ControlConfig, n_step.sarsa, "on-policy TD control"),
    "expected_sarsa": _control(
        q_learning.ControlConfig, q_learning.expected_sarsa,
        "TD control with the expected value of the next action",
    ),
    "n_step_sarsa": _control(
        n_step.NStepSarsaConfig, n_step.n_step_sarsa, "Sarsa with n-step returns",
        update_unit="n steps",
    ),
    "tree_backup": _control(
        n_step.TreeBackupConfig, n_step.tree_backup,
        "n-step off-policy control without importance sampling", on_policy=False,
        update_unit="n steps",
    ),
    "sarsa_lambda": _control(
        traces.SarsaLambdaConfig, traces.sarsa_lambda, "Sarsa with eligibility traces"
    ),
    "q_lambda": _control(
        traces.SarsaLambdaConfig, traces.q_lambda, "Watkins's Q-learning with eligibility traces",
        on_policy=False,
    ),
    "td": _control(prediction.TableConfig, prediction.td, "TD(0) prediction of state values"),
    "n_step_td": _control(
        prediction.NStepTDConfig, prediction.n_step_td, "n-step TD prediction of state values",
        update_unit="n steps",
    ),
    "td_lambda": _control(
        prediction.TDLambdaConfig, prediction.td_lambda,
        "TD(lambda) prediction with eligibility traces",
    ),
    "true_online_td_lambda": _control(
        prediction.TrueOnlineTDLambdaConfig, prediction.true_online_td_lambda,
        "TD(lambda) equal to the online lambda-return algorithm",
    ),
    "lambda_return": _control(
        prediction.TrueOnlineTDLambdaConfig, prediction.lambda_return,
        "offline lambda-return prediction, after each episode", update_unit="episode",
    ),
    "dqn": _replay(dqn.DQNConfig, dqn.dqn, "deep Q-network with replay buffer and target network"),
    "c51": _replay(c51.C51Config, c51.c51, "distributional DQN with a categorical distribution"),
    "qr_dqn": _replay(
        qr_dqn.QRDQNConfig, qr_dqn.qr_dqn, "distributional DQN with quantile regression"
    ),
    "munchausen": _replay(
        munchausen.MunchausenConfig, munchausen.munchausen,
        "DQN with the scaled log-policy added to the reward",
    ),
    "rainbow": _replay(
        c51.RainbowConfig, c51.c51, "C51 + double + dueling + prioritized + noisy + n-step"
    ),
    "ddpg": _continuous(
        ddpg.DDPGConfig, ddpg.ddpg, "deep deterministic policy gradient",
        memory=continuous.noise_memory,
    ),
    "td3": _continuous(
        td3.TD3Config, td3.td3, "DDPG with clipped double Q and a delayed policy",
        memory=continuous.noise_memory,
    ),
    "sac": _continuous(
        sac.SACConfig, sac.sac, "soft actor-critic with a learned temperature",
        memory=continuous.noise_memory,
    ),
    "simba": _continuous(
        simba.SimBaConfig, simba.simba, "SAC with residual networks and layer normalization",
        memory=continuous.noise_memory,
    ),
    "discrete_sac": _replay(
        discrete_sac.DiscreteSACConfig, discrete_sac.discrete_sac,
        "soft actor-critic for discrete actions", learns="policy and value",
        family="off-policy actor-critic",
    ),
    "pqn": AgentRow(
        pqn.PQNConfig, pqn.pqn, "parallel Q(lambda) without replay or target network",
        family="value-based", actions=("discrete",), on_policy=False,
    ),
    "reinforce": AgentRow(
        reinforce.REINFORCEConfig, reinforce.reinforce,
        "Monte Carlo policy gradient with a learned baseline", family="policy gradient",
        learns="policy", update_unit="episode",
    ),
    "actor_critic": _actor_critic(
        actor_critic.ActorCriticConfig, actor_critic.actor_critic, "one-step actor-critic",
        update_unit="step",
    ),
    "a2c": _actor_critic(
        a2c.A2CConfig, a2c.a2c, "synchronous advantage actor-critic", update_unit="n steps",
        memory=initial_memory,
    ),
    "a3c": _actor_critic(
        a3c.A3CConfig, a3c.a3c, "asynchronous advantage actor-critic, in lockstep",
        update_unit="n steps", memory=initial_memory,
    ),
    "impala": _actor_critic(
        impala.IMPALAConfig, impala.impala, "distributed actor-critic with V-trace correction",
        on_policy=False, update_unit="n steps",
    ),
    "trpo": _actor_critic(
        trpo.TRPOConfig, trpo.trpo, "trust region policy optimization"
    ),
    "ppo": _actor_critic(
        ppo.PPOConfig, ppo.ppo, "proximal policy optimization, clipped or KL-penalized",
        memory=initial_memory,
    ),
    "dppo": _actor_critic(
        dppo.DPPOConfig, dppo.dppo, "distributed PPO that averages gradients over workers",
        memory=initial_memory,
    ),
    "value_iteration": _planning(
        dynamic_programming.PlanningConfig, dynamic_programming.value_iteration,
        "optimal state values by sweeps over a known model", update_unit="sweep", on_policy=None,
    ),
    "policy_iteration": _planning(
        dynamic_programming.PlanningConfig, dynamic_programming.policy_iteration,
        "policy evaluation and improvement with a known model", update_unit="sweep", on_policy=None,
    ),
    "dyna_q": _planning(
        dyna.DynaQConfig, dyna.dyna_q, "Q-learning with planning from a learned model",
        on_policy=False,
    ),
    "dyna_q_plus": _planning(
        dyna.DynaQPlusConfig, dyna.dyna_q_plus,
        "Dyna-Q with a bonus for actions not tried recently", on_policy=False,
    ),
    "prioritized_sweeping": _planning(
        prioritized_sweeping.PrioritizedSweepingConfig, prioritized_sweeping.prioritized_sweeping,
        "planning from a learned model, largest TD error first", on_policy=False,
    ),
    "mbpo": AgentRow(
        mbpo.MBPOConfig, mbpo.mbpo, "SAC on short rollouts imagined by learned models",
        family="model-based", on_policy=False, model_based=True, learns="policy and value",
        update_unit="batch", memory=mbpo.noise_memory,
    ),
    "pets": AgentRow(
        pets.PETSConfig, pets.pets, "planning by the cross-entropy method in learned models",
        family="model-based", on_policy=False, model_based=True, learns="model",
        update_unit="batch", memory=pets.plan_memory,
    ),
    "alphazero": AgentRow(
        alphazero.AlphaZeroConfig, alphazero.alphazero,
        "tree search in the environment, guided by a network", family="model-based",
        actions=("discrete",), on_policy=False, model_based=True, learns="policy and value",
        update_unit="batch", plans_ahead=True, players=(1, 2),
    ),
    "muzero": AgentRow(
        muzero.MuZeroConfig, muzero.muzero, "Gumbel MuZero: tree search in a learned model",
        family="model-based", actions=("discrete",), on_policy=False, model_based=True,
        learns="policy and value", update_unit="batch", players=(1, 2),
    ),
}  # fmt: skip
