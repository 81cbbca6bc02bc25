"""The algorithms. `AGENTS` is the visible table: name -> its config, its maker, and what it is."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from rljax.agents import (
    a2c,
    a3c,
    c51,
    dppo,
    dqn,
    impala,
    munchausen,
    one_step_actor_critic,
    planning,
    ppo,
    pqn,
    qr_dqn,
    reinforce,
    trpo,
)
from rljax.agents.actor_critic import remember
from rljax.agents.tabular import (
    dyna,
    n_step,
    prediction,
    prioritized_sweeping,
    q_learning,
    traces,
)
from rljax.types import Agent, Env, EnvSpec


def as_it_is(config: Any, env: Env) -> Env:
    """What most agents ask of an environment: nothing."""
    del config
    return env


class AgentRow(NamedTuple):
    """One algorithm: `make(config, spec, **pieces) -> Agent`, and where it stands in the field."""

    config: type
    make: Callable[..., Agent]
    about: str = ""
    actions: tuple[str, ...] = ("discrete", "continuous")
    table: bool = False  # it keeps a table of states, and so needs an environment that counts them
    on_policy: bool = True
    model_based: bool = False
    wrap: Callable[[Any, Env], Env] = as_it_is  # of one environment, before it becomes a batch

    def check(self, name: str, spec: EnvSpec) -> None:
        """That the algorithm can act in an environment.

        Raises:
          ValueError: its actions are of the other kind, or it has no numbered states.
        """
        kind = "discrete" if spec.num_actions else "continuous"
        if kind not in self.actions:
            can = ", ".join(other for other, row in AGENTS.items() if kind in row.actions)
            raise ValueError(
                f"`{name}` needs {self.actions[0]} actions, but those of {spec.env_id} are {kind}: "
                f"take one of {can}."
            )
        if self.table and not spec.num_states:
            raise ValueError(
                f"`{name}` keeps a table, one row a state, but {spec.env_id} observes "
                f"{spec.obs_shape} and numbers no states: take a world such as rljax/Maze, or an "
                "agent with a network."
            )


_tabular = partial(AgentRow, actions=("discrete",), table=True)
_replayed = partial(AgentRow, actions=("discrete",), on_policy=False)

AGENTS = {
    "ppo": AgentRow(
        ppo.PPOConfig, ppo.ppo, "proximal policy optimization, clipped or with a KL penalty",
        wrap=remember,
    ),
    "a2c": AgentRow(
        a2c.A2CConfig, a2c.a2c, "advantage actor-critic on short rollouts", wrap=remember
    ),
    "reinforce": AgentRow(
        reinforce.REINFORCEConfig, reinforce.reinforce, "the policy gradient of whole episodes"
    ),
    "actor_critic": AgentRow(
        one_step_actor_critic.OneStepActorCriticConfig,
        one_step_actor_critic.one_step_actor_critic, "one-step actor-critic",
    ),
    "a3c": AgentRow(
        a3c.A3CConfig, a3c.a3c, "actor-critic with a local copy that lags, in lockstep",
        wrap=remember,
    ),
    "impala": AgentRow(
        impala.IMPALAConfig, impala.impala, "actors that lag behind, corrected by V-trace"
    ),
    "trpo": AgentRow(
        trpo.TRPOConfig, trpo.trpo, "natural-gradient steps within a trust region"
    ),
    "dppo": AgentRow(
        dppo.DPPOConfig, dppo.dppo, "PPO over workers, with a hinge on the KL", wrap=remember
    ),
    "dqn": _replayed(dqn.DQNConfig, dqn.dqn, "deep Q-network: replay and fixed targets"),
    "c51": _replayed(c51.C51Config, c51.c51, "DQN of the distribution of returns"),
    "qr_dqn": _replayed(qr_dqn.QRDQNConfig, qr_dqn.qr_dqn, "DQN of the quantiles of returns"),
    "munchausen": _replayed(
        munchausen.MunchausenConfig, munchausen.munchausen, "soft DQN, rewarded by its log-policy"
    ),
    "rainbow": _replayed(
        c51.RainbowConfig, c51.c51, "C51, double, dueling, prioritized, noisy, of n rewards"
    ),
    "pqn": AgentRow(
        pqn.PQNConfig, pqn.pqn, "Q(lambda) in parallel: no replay and no fixed targets",
        actions=("discrete",), on_policy=False,
    ),
    "value_iteration": AgentRow(
        planning.PlanningConfig, planning.value_iteration, "sweeps over a model that is known",
        actions=("discrete",), table=True, model_based=True,
    ),
    "policy_iteration": AgentRow(
        planning.PlanningConfig, planning.policy_iteration, "policies of a known model, evaluated",
        actions=("discrete",), table=True, model_based=True,
    ),
    "q_learning": _tabular(
        q_learning.QLearningConfig, q_learning.q_learning, "of the best next action, at every step",
        on_policy=False,
    ),
    "double_q_learning": _tabular(
        q_learning.DoubleQLearningConfig, q_learning.double_q_learning,
        "two tables, each judging what the other thinks best", on_policy=False,
    ),
    "sarsa": _tabular(n_step.SarsaConfig, n_step.sarsa, "of the next action that is really taken"),
    "expected_sarsa": _tabular(
        q_learning.ExpectedSarsaConfig, q_learning.expected_sarsa,
        "of what its own policy expects of the next step",
    ),
    "n_step_sarsa": _tabular(n_step.NStepSarsaConfig, n_step.n_step_sarsa, "of n rewards"),
    "tree_backup": _tabular(
        n_step.TreeBackupConfig, n_step.tree_backup,
        "of n rewards and of the actions not taken", on_policy=False,
    ),
    "sarsa_lambda": _tabular(
        traces.SarsaLambdaConfig, traces.sarsa_lambda, "Sarsa along the trace of an episode"
    ),
    "q_lambda": _tabular(
        traces.QLambdaConfig, traces.q_lambda, "Q-learning along the greedy part of a trace",
        on_policy=False,
    ),
    "td": _tabular(prediction.TDConfig, prediction.td, "TD(0): the values of a given policy"),
    "n_step_td": _tabular(prediction.NStepTDConfig, prediction.n_step_td, "values, of n rewards"),
    "td_lambda": _tabular(
        prediction.TDLambdaConfig, prediction.td_lambda, "values, along the trace of an episode"
    ),
    "true_online_td_lambda": _tabular(
        prediction.TrueOnlineTDLambdaConfig, prediction.true_online_td_lambda,
        "values, as if all returns were looked through again at every step",
    ),
    "lambda_return": _tabular(
        prediction.LambdaReturnConfig, prediction.lambda_return,
        "values, of whole episodes after their end",
    ),
    "dyna_q": _tabular(
        dyna.DynaQConfig, dyna.dyna_q, "Q-learning from life and from a model of it",
        on_policy=False, model_based=True,
    ),
    "dyna_q_plus": _tabular(
        dyna.DynaQPlusConfig, dyna.dyna_q_plus, "Dyna-Q, curious about what it has long not tried",
        on_policy=False, model_based=True,
    ),
    "prioritized_sweeping": _tabular(
        prioritized_sweeping.PrioritizedSweepingConfig, prioritized_sweeping.prioritized_sweeping,
        "plans where the model's errors are largest, and backwards from there",
        on_policy=False, model_based=True,
    ),
}  # fmt: skip
