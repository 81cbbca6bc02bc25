"""Exported policies act without rljax, in another process, as they do in rljax."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from policies import random_observations, random_policy

import rljax
from rljax.experiment import export as exporting

pytestmark = pytest.mark.usefixtures("quick_compiles")
pytest.importorskip("flatbuffers")

CASES = {
    "ppo": ("ppo", "CartPole-v1", {"normalize_obs": False, "normalize_reward": False}),
    "recurrent": ("ppo", "CartPole-v1", {"memory": "gru"}),
    "normalized": ("ppo", "Pendulum-v1", {"normalize_obs": True}),
    "dqn": ("dqn", "CartPole-v1", {"normalize_obs": True}),
    "sac": ("sac", "Pendulum-v1", {}),
    "tabular": ("q_learning", "rljax/Maze", {}),
}
NUM, STEPS = 1000, 5  # observations, and calls that they are divided between

# runs the lines that README.txt has, for each of the directories
SCRIPT = """
import os, sys
sys.modules["rljax"] = None  # importing it is an error
import numpy
for directory in sys.argv[1:]:
    os.chdir(directory)
    lines = [x.strip() for x in open("README.txt") if x.startswith("    ")]
    *load, call = lines
    assert len(load) == (4 if os.path.exists("memory.npy") else 2), lines
    actions, observations = [], numpy.load("observations.npy")
    for step, obs in enumerate(observations):
        seed = numpy.uint32(step)
        exec("\\n".join(lines if step == 0 else [call]))
        actions.append(numpy.asarray(action))
    numpy.save("other.npy", numpy.stack(actions))
try:
    import rljax
except ImportError:
    print("without rljax")
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The actions of each policy here, and those of its files in a process without rljax."""
    parent, actions = tmp_path_factory.mktemp("export"), {}
    for name, (agent, env, options) in CASES.items():
        policy = random_policy(agent, env, **options)
        directory = exporting.export(policy, parent / name)
        obs = random_observations(policy, NUM)
        obs = obs.reshape(STEPS, NUM // STEPS, *obs.shape[1:])
        np.save(directory / "observations.npy", obs)
        actions[name] = np.stack([policy(x) for x in obs])
    directories = [str(parent / name) for name in CASES]
    command = [sys.executable, "-c", SCRIPT, *directories]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "without rljax\n"
    return parent, actions


@pytest.mark.parametrize("name", CASES)
def test_actions_are_equal_in_a_process_without_rljax(exported, name):
    parent, actions = exported
    own, other = actions[name], np.load(parent / name / "other.npy")
    assert other.dtype == own.dtype and len(np.unique(own)) > 1
    if np.issubdtype(own.dtype, np.integer):
        np.testing.assert_array_equal(other, own)
    else:  # another compilation may round differently
        np.testing.assert_allclose(other, own, rtol=1e-5, atol=1e-5)


def test_parameters_have_names(exported):
    parent, _ = exported
    with np.load(parent / "dqn" / "params.npz", allow_pickle=False) as params:
        shapes = {name: x.shape for name, x in params.items()}
    prefix = "learned/params/params/value"
    assert shapes[f"{prefix}/kernel"] == (64, 2) and shapes["moments/mean"] == (4,)
    assert not any("target" in name or "opt" in name or "replay" in name for name in shapes)


def test_the_description_is_that_of_the_environment(exported):
    parent, _ = exported
    about = json.loads((parent / "sac" / "policy.json").read_text())
    assert about["observation"] == {"shape": [3], "dtype": "float32"}
    assert about["action"] == {"shape": [1], "dtype": "float32", "low": [-2.0], "high": [2.0]}
    assert (about["env_id"], about["rljax"]) == ("Pendulum-v1", rljax.__version__)
    about = json.loads((parent / "recurrent" / "policy.json").read_text())
    assert about["action"] == {"shape": [], "dtype": "int32", "num_actions": 2}
    assert (about["memory_shape"], about["has_seed"]) == ([64], False)


def test_the_function_serves_cpu_and_accelerators(exported):
    parent, _ = exported
    function = jax.export.deserialize((parent / "ppo" / "policy.jaxexport").read_bytes())
    assert set(function.platforms) == {"cpu", "cuda", "tpu"}
    for size in (1, 3):
        assert function.call(np.zeros((size, 4), np.float32)).shape == (size,)
    with pytest.raises(ValueError, match="shape"):
        function.call(np.zeros((1, 3), np.float32))


def test_loading_a_function_executes_no_code_of_the_file(exported):
    """Of Python's audit events none that runs code, unpickles, imports, or opens a file."""
    parent, _ = exported
    data = (parent / "ppo" / "policy.jaxexport").read_bytes()
    jax.export.deserialize(data)  # modules of JAX are imported
    events, is_active = [], True
    sys.addaudithook(lambda event, _: events.append(event) if is_active else None)
    jax.export.deserialize(data)
    during = list(events)
    eval("1")
    is_active = False
    assert "exec" in events  # the hook sees what runs code
    names = ("exec", "compile", "import", "open", "pickle.", "marshal.", "os.", "subprocess.")
    assert [event for event in during if event.startswith(names)] == []


def test_trees_of_observations_are_dicts(tmp_path):
    from masked_environments import LEGAL, NUM_STATES, masked_process

    policy = random_policy("ppo", masked_process())
    directory = rljax.export(policy, tmp_path / "policy")
    function = jax.export.deserialize((directory / "policy.jaxexport").read_bytes())
    obs = {"state": np.arange(NUM_STATES, dtype=np.int32), "legal": LEGAL}
    np.testing.assert_array_equal(function.call(obs), policy(obs))
    assert (
        'obs: {"legal": bool [B, 6], "state": int32 [B]}' in (directory / "README.txt").read_text()
    )


def test_every_kind_of_policy_is_exported():
    """Also those that search with a model or sample, for batches of any size."""
    pets = {"horizon": 2, "num_candidates": 4, "num_elite_plans": 2, "num_iterations": 1}
    for agent, env, greedy, options in (
        ("pets", "Pendulum-v1", True, pets),
        ("muzero", "CartPole-v1", True, {"num_simulations": 2, "num_considered_actions": 2}),
        ("sac", "Pendulum-v1", False, {}),
    ):
        policy = random_policy(agent, env, greedy=greedy, **options)
        function = jax.export.deserialize(bytearray(exporting.serialized(policy)))
        assert policy.program.is_random
        assert str(function.in_avals[0].shape[0]) == "batch"


def test_without_flatbuffers_the_error_names_the_command(monkeypatch, tmp_path):
    def no_flatbuffers(*args, **kwargs):
        raise ImportError("Please install 'flatbuffers'")

    monkeypatch.setattr(jax.export.Exported, "serialize", no_flatbuffers)
    policy = random_policy("dqn", "CartPole-v1")
    with pytest.raises(ValueError, match=r'pip install "rljax-research\[export\]"'):
        rljax.export(policy, tmp_path / "policy")
    assert not (tmp_path / "policy").exists()
