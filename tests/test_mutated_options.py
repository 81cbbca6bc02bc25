"""Mutated options: each is accepted, or refused at once by one sentence that names the option.

`RLJAX_MUTATIONS=1500 pytest tests/test_mutated_options.py` tries more of them.
"""

import dataclasses
import os
import shutil
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import rljax
from rljax.__main__ import main
from rljax.agents import AGENTS
from rljax.config import field_types
from rljax.experiment.hyperparameters import piece_names
from rljax.experiment.options import RUN_OPTIONS
from rljax.training import runs

NUM_MUTATIONS = int(os.environ.get("RLJAX_MUTATIONS", "200"))
MAX_SECONDS = 5.0  # far above the second that a refusal takes, because other programs may run
VALUES = (
    0, -1, 1, 2, 3, 7, 10**6, 10**9, 2**31, 2**32, 2**53 + 1, 10**12, 10**30, 0.5, 1.5, -0.0,
    1e-50, 1e39, 1e300, float("nan"), float("inf"), float("-inf"), "", " ", "x", "1e6", "1e999",
    "nan", "-1", "true", "none", "64,64", "64;64", "é", "a\nb", True, False, None, b"x", 1j,
    object(), object, len, (), [], {}, [0.1], [0.1, 0.2], [0.1, float("nan")], [[0.1]], (64, 64),
    (64, -1), (0,),
    (10**12,), ["clip", "kl"], {"gravity": 9.8}, {"gravity": "x"}, {"x": 1}, np.float32(0.5),
    np.arange(3), np.zeros((2, 2)), np.array("x"),
)  # fmt: skip


def env_of(name):
    """Returns an environment that an agent can act in."""
    row = AGENTS[name]
    if row.tabular:
        return "rljax/Maze"
    if row.plans_ahead:
        return "rljax/TicTacToe"
    return "CartPole-v1" if "discrete" in row.actions else "Pendulum-v1"


def options_of(name):
    fields = field_types(AGENTS[name].config)
    run_options = [option for option in RUN_OPTIONS if option not in ("run_dir", "resume")]
    return [*fields, *piece_names(AGENTS[name]), *run_options]


@st.composite
def mutations(draw):
    agent = draw(st.sampled_from(sorted(AGENTS)))
    option = draw(st.sampled_from(options_of(agent)))
    return agent, option, draw(st.sampled_from(VALUES))


class Compiles(BaseException):
    """Raised in place of compiling."""


@pytest.fixture
def nothing_compiles(monkeypatch, tmp_path):
    def stop(*args, **kwargs):
        raise Compiles

    monkeypatch.setattr(runs.Runs, "__init__", stop)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def names(option):
    """The texts of which a message about an option has to contain one."""
    others = {"writers": ["there is no writer"], "env_params": ["has no option", "the parameter"]}
    spelled = [option, option.replace("_", "-"), option.replace("_", " ")]
    return spelled + others.get(option, [])


def check(message, option):
    assert message and "\n" not in message, message
    assert message.endswith((".", "?")), message
    assert any(name in message for name in names(option)), f"{option} is not named in: {message}"


def settings(function):
    fixture = hypothesis.HealthCheck.function_scoped_fixture
    return hypothesis.settings(
        max_examples=NUM_MUTATIONS, derandomize=True, deadline=None, database=None,
        suppress_health_check=[fixture],
    )(function)  # fmt: skip


@settings
@hypothesis.given(mutation=mutations())
def test_options_in_python(mutation, nothing_compiles):
    agent, option, value = mutation
    start = time.perf_counter()
    try:
        rljax.train(agent, env_of(agent), **{"progress": False, option: value})
    except Compiles:
        pass
    except ValueError as error:
        check(str(error), option)
        assert time.perf_counter() - start < MAX_SECONDS
    assert not list(nothing_compiles.iterdir())


@settings
@hypothesis.given(mutation=mutations())
def test_options_of_the_command_line(mutation, nothing_compiles, capsys):
    agent, option, value = mutation
    hypothesis.assume(option != "devices")  # JAX has started, and simulates no more devices
    words = ["train", agent, env_of(agent), f"--{option.replace('_', '-')}={value}"]
    start = time.perf_counter()
    try:
        code = main(words)
    except Compiles:
        shutil.rmtree(nothing_compiles / "runs")
        return
    finally:
        captured = capsys.readouterr().err
    assert code == 2
    (line,) = [line for line in captured.splitlines() if "has tuned settings" not in line]
    assert line.startswith("error: ")
    check(line, option)
    assert time.perf_counter() - start < MAX_SECONDS
    assert not list(nothing_compiles.iterdir())


def test_every_agent_accepts_its_defaults(nothing_compiles):
    """The mutations above start from options that are accepted."""
    for agent, row in AGENTS.items():
        values = {field.name: field.default for field in dataclasses.fields(row.config)}
        with pytest.raises(Compiles):
            rljax.train(agent, env_of(agent), progress=False, **values)
