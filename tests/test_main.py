"""The command line: words, errors, exit codes, settings, and the commands from end to end."""

import subprocess
import sys

import pytest

import rljax
from rljax.__main__ import main
from rljax.cli import parser
from rljax.cli.commands import COMMANDS

SMALL = ["--num-envs", "2", "--num-steps", "8", "--total-timesteps", "64", "--eval-episodes", "2"]


# Words


@pytest.mark.parametrize(
    ("words", "positionals", "options"),
    [
        ([], [], {}),
        (["ppo", "CartPole-v1"], ["ppo", "CartPole-v1"], {}),
        (["ppo", "--num-seeds", "8"], ["ppo"], {"num_seeds": "8"}),
        (["--num_seeds=8"], [], {"num_seeds": "8"}),
        (["--gamma=", "--lr=a=b"], [], {"gamma": "", "lr": "a=b"}),
        (["--double", "--no-anneal-lr"], [], {"double": "true", "anneal_lr": "false"}),
        (["--double", "false"], [], {"double": "false"}),
        (["-h"], [], {"help": "true"}),
        (["runs/a", "runs/b", "-o", "a.png"], ["runs/a", "runs/b"], {"output": "a.png"}),
        (["--low", "-1"], [], {"low": "-1"}),
    ],
    ids=str,
)
def test_words_are_split_into_positionals_and_options(words, positionals, options):
    assert parser.parse(words) == (positionals, options)


# Errors


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "rljax has no command `trian`: did you mean `train`?"),
        ("train pppo --help", "rljax has no agent `pppo`: did you mean `ppo`?"),
        ("train pppo CartPole-v1", "there is no agent `pppo`: did you mean `ppo`?"),
        ("train ppo CartPol-v1", "did you mean `CartPole-v1`?"),
        ("train ppo CartPole-v1 --lr 1", "`ppo` has no option `lr`: `lr` is `learning_rate` here."),
        (
            "train ppo CartPole-v1 --num-seed 3",
            "option `num_seed`: did you mean `num_seeds`?",
        ),
        ("train ppo CartPole-v1 --run-dirr x", "no option `run_dirr`: did you mean `run_dir`?"),
        (
            "train ppo CartPole-v1 --num-envs many",
            "is 'many', but it must be an integer.",
        ),
        ("train ppo CartPole-v1 --activation tan", "must be one of tanh, relu"),
        ("train ppo CartPole-v1 x", "the arguments of `rljax train` are AGENT ENV"),
        ("train ppo --num-seeds 8 x", "unexpected argument `x`: options are written --name value."),
        ("train ppo CartPole-v1 --seed 1 --seed 2", "`--seed` is given twice: give it once."),
        ("train ppo CartPole-v1 --num-processes 2", "give host:port of process 0."),
        ("plot --metrik x", "`rljax plot` has no option `metrik`: did you mean `metric`?"),
        (
            "train ppo CartPole-v1 --run-dir --seed 1",
            "`--run-dir` has no value: write --run-dir VA",
        ),
        ("train ppo CartPole-v1 --learning-rate", "`--learning-rate` has no value: write --learn"),
        ("evaluate nowhere --seed", "`--seed` has no value: write --seed VALUE."),
        ("train ppo CartPole-v1 -n 8", "there is no option `-n`: options are written --name value"),
        ("train ppo CartPole-v1 --agent dqn", "`--agent` is not an option: write rljax train AGEN"),
        ("plot", "the arguments of `rljax plot` are RUN_DIR ..., but it got none."),
        ("evaluate nowhere --num-episodes 0", "`num_episodes` is 0, but it must be at least 1."),
        ("evaluate nowhere", "there is no run in nowhere: give the directory"),
        ("list xyz", "there is no environment suite `xyz`: the suites are gymnax, rljax"),
        ("list x y", "the arguments of `rljax list` are SUITE or RUNS_DIR, but it got x y."),
    ],
)
def test_errors_name_the_mistake_and_the_cure(line, message, capsys):
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message.lower() in error.lower()
    assert len(error.splitlines()) == 1


def test_options_that_exclude_each_other_leave_no_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "train q_learning rljax/Maze --eval-interval 5000 --eval-episodes 0"
    assert main(line.split()) == 2 and "`eval_episodes` is 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_divergence_and_interrupts_have_their_exit_codes(monkeypatch, capsys):
    for error, code in ((FloatingPointError("x is NaN"), 1), (KeyboardInterrupt("saved"), 130)):

        def run(positionals, options, error=error):
            raise error

        monkeypatch.setitem(COMMANDS, "list", COMMANDS["list"]._replace(run=run))
        assert main(["list"]) == code
        assert str(error) in capsys.readouterr().err


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -W ignore -m rljax list | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("Tabular")


# Settings


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """`words -> plan` of `rljax train`, without training."""
    from rljax.experiment import groups

    plans = []

    def record_plan(plan, *_, **__):
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(groups, "run_plan", record_plan)

    def plan(*words):
        assert main(["train", *words]) == 130
        return plans.pop()

    return plan


def test_options_become_hyperparameters_sweeps_and_run_options(planned):
    plan = planned(
        "dqn", "CartPole-v1", "--num-seeds", "3", "--seed", "7", "--learning-rate", "1e-3,1e-4",
        "--hidden-sizes", "32,16", "--double", "--no-anneal-lr", "--total-timesteps", "1e4",
        "--env-params.max_episode_steps", "100",
    )  # fmt: skip
    assert (plan.num_seeds, plan.seed, plan.sweep) == (3, 7, {"learning_rate": [1e-3, 1e-4]})
    assert plan.config.hidden_sizes == (32, 16) and plan.config.total_timesteps == 10_000
    assert plan.config.double and not plan.config.anneal_lr
    assert plan.env_params == {"max_episode_steps": 100}


def test_parameters_of_the_environment_are_numbers_flags_or_text(planned):
    words = ["--env-params.version", "final", "--env-params.max_episode_steps", "1e2"]
    plan = planned("ppo", "rljax/TwoJointArm", *words)
    assert plan.env_params == {"version": "final", "max_episode_steps": 100}
    plan = planned("q_learning", "rljax/Maze", "--env-params.features", "false")
    assert plan.env_params == {"features": False}


def test_tuned_settings_are_used_on_request_and_overridden_by_options(planned, capsys):
    tuned = rljax.tuned("ppo", "Pendulum-v1")
    plan = planned("ppo", "Pendulum-v1", "--config", "tuned", "--gamma", "0.5")
    assert (plan.agent, plan.env_id, plan.config.gamma) == ("ppo", "Pendulum-v1", 0.5)
    for name in ("learning_rate", "num_steps", "total_timesteps"):
        assert getattr(plan.config, name) == tuned[name]
    assert plan.num_seeds == tuned["num_seeds"]
    assert "tuned settings" not in capsys.readouterr().err


def test_a_note_says_that_tuned_settings_exist(planned, capsys):
    plan = planned("ppo", "Pendulum-v1")
    assert plan.config.gamma == rljax.PPOConfig().gamma
    note = "configs/ppo/Pendulum-v1.toml has tuned settings for this pair: add --config tuned"
    assert note in capsys.readouterr().err.splitlines()
    planned("ppo", "Acrobot-v1")
    assert "tuned" not in capsys.readouterr().err


def test_tuned_settings_that_do_not_exist_are_an_error(capsys):
    assert main(["train", "ppo", "Acrobot-v1", "--config", "tuned"]) == 2
    error = capsys.readouterr().err
    assert "no tuned settings for `ppo` on Acrobot-v1" in error and "Pendulum-v1" in error


def test_a_file_of_settings_serves_another_pair_too(planned, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('agent = "a2c"\nenv_id = "Acrobot-v1"\ngamma = 0.5\nnum_envs = 4\n')
    plan = planned("ppo", "CartPole-v1", "--config", str(path), "--num-envs", "2")
    assert (plan.agent, plan.env_id) == ("ppo", "CartPole-v1")
    assert (plan.config.gamma, plan.config.num_envs) == (0.5, 2)
    plan = planned(str(path), "--num-envs", "2")
    assert (plan.agent, plan.env_id, plan.config.num_envs) == ("a2c", "Acrobot-v1", 2)
    assert main(["train", str(path), "--config", "tuned"]) == 2
    assert "give one" in capsys.readouterr().err


def test_options_of_a_file_that_an_agent_lacks_are_refused(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text("clip_eps = 0.1\n")
    assert main(["train", "dqn", "CartPole-v1", "--config", str(path)]) == 2
    assert "`dqn` has no option `clip_eps`" in capsys.readouterr().err
    assert main(["train", str(path)]) == 2
    assert "mine.toml has no `agent`" in capsys.readouterr().err


# From end to end


def test_train_resume_evaluate_plot_and_watch(tmp_path, monkeypatch, capsys, quick_compiles):
    monkeypatch.chdir(tmp_path)
    words = ["train", "q_learning", "rljax/Maze", *SMALL, "--num-seeds", "2", "--no-progress"]
    assert main(words) == 0
    assert "next:\n  rljax watch runs/q_learning-rljax-Maze-1\n" in capsys.readouterr().out
    (run_dir,) = tmp_path.glob("runs/*")
    assert main(["resume", str(run_dir), "--no-progress", "--eval-episodes", "2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run_dir), "--num-episodes", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["seed", "seed", "mean"]
    assert "3 episodes each, greedy actions" in lines[-1]
    assert main(["plot", str(run_dir), "-o", "figure.png"]) == 0
    assert main(["watch", str(run_dir), "--run", "1", "--max-steps", "3", "-o", "show.gif"]) == 0
    assert (tmp_path / "figure.png").is_file() and (tmp_path / "show.gif").is_file()
