"""rljax: reinforcement learning on JAX. Agents are pure functions over explicit state.

    import rljax

    run = rljax.train("ppo", "CartPole-v1", seeds=8)
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
    from rljax.agents.ppo import PPOConfig as PPOConfig
    from rljax.agents.ppo import adaptive_kl as adaptive_kl
    from rljax.agents.ppo import clip as clip
    from rljax.agents.ppo import ppo as ppo
    from rljax.config import option as option
    from rljax.envs import build as build
    from rljax.envs import environment_ids as environment_ids
    from rljax.envs import make as make
    from rljax.experiment import evaluate as evaluate
    from rljax.experiment import load_states as load_states
    from rljax.experiment import resume as resume
    from rljax.experiment import train as train
    from rljax.results import Result as Result
    from rljax.results import compare as compare
    from rljax.results import load_result as load_result
    from rljax.results import plot_results as plot_results
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
    "rljax.agents.ppo": ("PPOConfig", "adaptive_kl", "clip", "ppo"),
    "rljax.config": ("option",),
    "rljax.envs": ("build", "environment_ids", "make"),
    "rljax.experiment": ("evaluate", "load_states", "resume", "train"),
    "rljax.results": ("Result", "compare", "load_result", "plot_results"),
    "rljax.training.learner": ("make_learner",),
    "rljax.types": ("Agent", "Env", "EnvSpec", "Learner", "Step", "TrainState", "Transition"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rljax' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
