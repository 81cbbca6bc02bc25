"""rljax: reinforcement learning on JAX. Agents are pure functions over explicit state.

    import rljax

    run = rljax.train("ppo", "CartPole-v1", num_seeds=8)
    run.plot("curve.png")

Names are imported where they are first used, so `import rljax` costs little.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rljax.agents import AGENTS as AGENTS
    from rljax.agents import AgentRow as AgentRow
    from rljax.agents.a2c import A2CConfig as A2CConfig
    from rljax.agents.a2c import a2c as a2c
    from rljax.agents.a3c import A3CConfig as A3CConfig
    from rljax.agents.a3c import a3c as a3c
    from rljax.agents.actor_critic import (
        ActorCriticConfig as ActorCriticConfig,
    )
    from rljax.agents.actor_critic import actor_critic as actor_critic
    from rljax.agents.c51 import C51Config as C51Config
    from rljax.agents.c51 import RainbowConfig as RainbowConfig
    from rljax.agents.c51 import c51 as c51
    from rljax.agents.dppo import DPPOConfig as DPPOConfig
    from rljax.agents.dppo import dppo as dppo
    from rljax.agents.dppo import hinged_kl as hinged_kl
    from rljax.agents.dqn import DQNConfig as DQNConfig
    from rljax.agents.dqn import dqn as dqn
    from rljax.agents.impala import IMPALAConfig as IMPALAConfig
    from rljax.agents.impala import impala as impala
    from rljax.agents.munchausen import MunchausenConfig as MunchausenConfig
    from rljax.agents.munchausen import munchausen as munchausen
    from rljax.agents.ppo import PPOConfig as PPOConfig
    from rljax.agents.ppo import adaptive_kl as adaptive_kl
    from rljax.agents.ppo import clip as clip
    from rljax.agents.ppo import ppo as ppo
    from rljax.agents.pqn import PQNConfig as PQNConfig
    from rljax.agents.pqn import pqn as pqn
    from rljax.agents.qr_dqn import QRDQNConfig as QRDQNConfig
    from rljax.agents.qr_dqn import qr_dqn as qr_dqn
    from rljax.agents.reinforce import REINFORCEConfig as REINFORCEConfig
    from rljax.agents.reinforce import reinforce as reinforce
    from rljax.agents.tabular.dyna import DynaQConfig as DynaQConfig
    from rljax.agents.tabular.dyna import DynaQPlusConfig as DynaQPlusConfig
    from rljax.agents.tabular.dyna import dyna_q as dyna_q
    from rljax.agents.tabular.dyna import dyna_q_plus as dyna_q_plus
    from rljax.agents.tabular.n_step import NStepSarsaConfig as NStepSarsaConfig
    from rljax.agents.tabular.n_step import TreeBackupConfig as TreeBackupConfig
    from rljax.agents.tabular.n_step import n_step_sarsa as n_step_sarsa
    from rljax.agents.tabular.n_step import sarsa as sarsa
    from rljax.agents.tabular.n_step import tree_backup as tree_backup
    from rljax.agents.tabular.prediction import NStepTDConfig as NStepTDConfig
    from rljax.agents.tabular.prediction import TDLambdaConfig as TDLambdaConfig
    from rljax.agents.tabular.prediction import TrueOnlineTDLambdaConfig as TrueOnlineTDLambdaConfig
    from rljax.agents.tabular.prediction import lambda_return as lambda_return
    from rljax.agents.tabular.prediction import n_step_td as n_step_td
    from rljax.agents.tabular.prediction import td as td
    from rljax.agents.tabular.prediction import td_lambda as td_lambda
    from rljax.agents.tabular.prediction import true_online_td_lambda as true_online_td_lambda
    from rljax.agents.tabular.prioritized_sweeping import (
        PrioritizedSweepingConfig as PrioritizedSweepingConfig,
    )
    from rljax.agents.tabular.prioritized_sweeping import (
        prioritized_sweeping as prioritized_sweeping,
    )
    from rljax.agents.tabular.q_learning import double_q_learning as double_q_learning
    from rljax.agents.tabular.q_learning import expected_sarsa as expected_sarsa
    from rljax.agents.tabular.q_learning import q_learning as q_learning
    from rljax.agents.tabular.traces import SarsaLambdaConfig as SarsaLambdaConfig
    from rljax.agents.tabular.traces import q_lambda as q_lambda
    from rljax.agents.tabular.traces import sarsa_lambda as sarsa_lambda
    from rljax.agents.trpo import TRPOConfig as TRPOConfig
    from rljax.agents.trpo import trpo as trpo
    from rljax.config import option as option
    from rljax.envs import build as build
    from rljax.envs import environment_ids as environment_ids
    from rljax.envs import make as make
    from rljax.experiment.run import evaluate as evaluate
    from rljax.experiment.run import load_states as load_states
    from rljax.experiment.run import resume as resume
    from rljax.experiment.run import train as train
    from rljax.results.result import Result as Result
    from rljax.results.result import compare as compare
    from rljax.results.result import load_result as load_result
    from rljax.results.result import plot_results as plot_results
    from rljax.training.learner import make_learner as make_learner
    from rljax.types import Agent as Agent
    from rljax.types import Env as Env
    from rljax.types import EnvSpec as EnvSpec
    from rljax.types import Learner as Learner
    from rljax.types import Step as Step
    from rljax.types import TrainState as TrainState
    from rljax.types import Transition as Transition

_HOME = {
    "rljax.agents": ("AGENTS", "AgentRow"),
    "rljax.agents.a2c": ("A2CConfig", "a2c"),
    "rljax.agents.a3c": ("A3CConfig", "a3c"),
    "rljax.agents.c51": ("C51Config", "RainbowConfig", "c51"),
    "rljax.agents.dppo": ("DPPOConfig", "dppo", "hinged_kl"),
    "rljax.agents.dqn": ("DQNConfig", "dqn"),
    "rljax.agents.impala": ("IMPALAConfig", "impala"),
    "rljax.agents.munchausen": ("MunchausenConfig", "munchausen"),
    "rljax.agents.actor_critic": ("ActorCriticConfig", "actor_critic"),
    "rljax.agents.ppo": ("PPOConfig", "adaptive_kl", "clip", "ppo"),
    "rljax.agents.pqn": ("PQNConfig", "pqn"),
    "rljax.agents.qr_dqn": ("QRDQNConfig", "qr_dqn"),
    "rljax.agents.reinforce": ("REINFORCEConfig", "reinforce"),
    "rljax.agents.tabular.dyna": ("DynaQConfig", "DynaQPlusConfig", "dyna_q", "dyna_q_plus"),
    "rljax.agents.tabular.n_step": (
        "NStepSarsaConfig", "TreeBackupConfig", "n_step_sarsa", "sarsa",
        "tree_backup",
    ),
    "rljax.agents.tabular.prediction": (
        "NStepTDConfig", "TDLambdaConfig",
        "TrueOnlineTDLambdaConfig", "lambda_return", "n_step_td", "td", "td_lambda",
        "true_online_td_lambda",
    ),
    "rljax.agents.tabular.prioritized_sweeping": (
        "PrioritizedSweepingConfig", "prioritized_sweeping",
    ),
    "rljax.agents.tabular.q_learning": (
        "double_q_learning",
        "expected_sarsa", "q_learning",
    ),
    "rljax.agents.tabular.traces": (
        "SarsaLambdaConfig", "q_lambda", "sarsa_lambda",
    ),
    "rljax.agents.trpo": ("TRPOConfig", "trpo"),
    "rljax.config": ("option",),
    "rljax.envs": ("build", "environment_ids", "make"),
    "rljax.experiment.run": ("evaluate", "load_states", "resume", "train"),
    "rljax.results.result": ("Result", "compare", "load_result", "plot_results"),
    "rljax.training.learner": ("make_learner",),
    "rljax.types": ("Agent", "Env", "EnvSpec", "Learner", "Step", "TrainState", "Transition"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rljax' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
