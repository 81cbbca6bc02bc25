"""The tuned settings in configs/: where they are found, and that each is well-formed."""

from pathlib import Path

import jax
import pytest

import rljax
from rljax.config import load
from rljax.experiment import tuned
from rljax.experiment.make_plan import plan_from_record

CONFIGS = Path(rljax.__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_files_are_named_by_agent_and_environment(path):
    record = load(path)
    name = path.relative_to(CONFIGS).as_posix()
    pair = f"{record['agent']}/{record['env_id']}"
    assert name == f"{pair}.toml" or (name.startswith(f"{pair}.") and name.count(".") == 2)
    assert (CONFIGS / f"{pair}.toml").is_file(), "a second setting needs a first"
    with jax.numpy_rank_promotion("allow"):  # gymnax's Swimmer-misc promotes ranks
        plan_from_record(record)


def test_tuned_settings_are_arguments_of_train():
    settings = rljax.tuned("q_learning", "rljax/CliffWalking")
    assert settings["agent"] == "q_learning" and settings["env"] == "rljax/CliffWalking"
    small = {"num_seeds": 1, "total_timesteps": 64, "eval_episodes": 0, "progress": False}
    result = rljax.train(**settings | small)
    assert result.config["learning_rate"] == settings["learning_rate"]
    assert result.config["env_params"] == settings["env_params"]


def test_variants_and_other_suites_are_told_apart():
    assert rljax.tuned("ppo", "CartPole-v1").get("surrogate") is None
    assert rljax.tuned("ppo", "gymnax/CartPole-v1") == rljax.tuned("ppo", "CartPole-v1")
    assert rljax.tuned("ppo", "partial/CartPole-v1")["memory"] == "gru"
    assert tuned.tuned_env_ids("ppo") == [
        "Breakout-MinAtar", "CartPole-v1", "MountainCarContinuous-v0", "Pendulum-v1",
        "partial/CartPole-v1", "rljax/Car2D", "rljax/TwoJointArm",
    ]  # fmt: skip


def test_missing_settings_name_those_that_exist():
    with pytest.raises(ValueError, match=r"`trpo` on Catch-bsuite.*Acrobot-v1, CartPole-v1"):
        rljax.tuned("trpo", "Catch-bsuite")
    with pytest.raises(ValueError, match=r"`rainbow` on CartPole-v1: this agent has none"):
        rljax.tuned("rainbow", "CartPole-v1")


def test_an_installed_package_has_its_own_directory(tmp_path, monkeypatch):
    (tmp_path / "rljax" / "configs").mkdir(parents=True)
    monkeypatch.setattr(tuned, "__file__", str(tmp_path / "rljax" / "experiment" / "tuned.py"))
    assert tuned.config_dir() == tmp_path / "rljax" / "configs"
    (tmp_path / "rljax" / "configs").rmdir()
    assert tuned.config_dir() == tmp_path / "configs"
