"""The tuned settings that come with rljax: `configs/AGENT/ENV_ID.toml`, one file per pair.

`rljax/Maze` stands in `configs/q_learning/rljax/Maze.toml`. A second setting for the same pair has
a suffix, such as `CartPole-v1.kl.toml`, and is not found by `tuned`; give its path instead.
"""

from pathlib import Path
from typing import Any

from rljax import config as configs


def tuned(agent: str, env_id: str) -> dict[str, Any]:
    """Returns the tuned settings of an agent on an environment, as arguments of `rljax.train`.

    The settings include the number of seeds and of environment steps that they were tested with.
    Change some with `rljax.train(**rljax.tuned("ppo", "Pendulum-v1") | {"num_seeds": 2})`.

    Raises:
      ValueError: no tuned settings exist for this pair; the message names those that exist.

    Example:
      >>> settings = tuned("ppo", "Pendulum-v1")
      >>> settings["agent"], settings["env"], settings["gamma"]
      ('ppo', 'Pendulum-v1', 0.9)
    """
    path = tuned_path(agent, env_id)
    if path is None:
        others = tuned_env_ids(agent)
        exist = f"`{agent}` has some for {', '.join(others)}" if others else "this agent has none"
        raise ValueError(f"there are no tuned settings for `{agent}` on {env_id}: {exist}.")
    settings = configs.load(path)
    return {"agent": settings.pop("agent"), "env": settings.pop("env_id"), **settings}


def tuned_path(agent: str, env_id: str) -> Path | None:
    """Returns the file of the tuned settings of an agent on an environment, or None."""
    path = config_dir() / agent / f"{env_id.removeprefix('gymnax/')}.toml"
    return path if path.is_file() else None


def tuned_env_ids(agent: str) -> list[str]:
    """Returns the ids of the environments for which an agent has tuned settings."""
    folder = config_dir() / agent
    paths = sorted(folder.rglob("*.toml"))
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    return [name for name in names if configs.load(folder / f"{name}.toml")["env_id"] == name]


def config_dir() -> Path:
    """Returns the directory of the tuned settings.

    It is part of the package in an installed wheel, and beside the package in a checkout.
    """
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
