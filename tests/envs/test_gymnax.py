"""gymnax environments: dynamics against gymnasium, resets against gymnax, imports."""

import subprocess
import sys

import gymnasium
import jax
import numpy as np
import pytest
from probes import rollout
from scipy import stats

from rljax import envs
from rljax.envs import gymnax as adapter
from rljax.envs import wrapped

KEY = jax.random.key(0)
UNSUPPORTED = {"MNISTBandit-bsuite": "its constructor downloads MNIST"}


@pytest.fixture(autouse=True)
def _gymnax_promotes_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def random_actions(spec, shape):
    if spec.num_actions:
        return jax.random.randint(KEY, shape, 0, spec.num_actions)
    shape = (*shape, *spec.action_shape)
    return jax.random.uniform(KEY, shape, minval=spec.action_low, maxval=spec.action_high)


def _cart_pole(state):
    return [state.x, state.x_dot, state.theta, state.theta_dot]


def _mountain_car(state):
    return [state.position, state.velocity]


def _acrobot(state):
    return [state.joint_angle1, state.joint_angle2, state.velocity_1, state.velocity_2]


def _pendulum(state):
    return [state.theta, state.theta_dot]


@pytest.mark.parametrize(
    ("env_id", "state_vector", "tolerance"),
    [
        ("CartPole-v1", _cart_pole, 1e-5),
        ("MountainCar-v0", _mountain_car, 1e-5),
        ("MountainCarContinuous-v0", _mountain_car, 1e-5),
        ("Acrobot-v1", _acrobot, 1e-4),
        ("Pendulum-v1", _pendulum, 1e-5),
    ],
)
def test_dynamics_match_gymnasium(env_id, state_vector, tolerance):
    """Each of 300 random steps is compared with a step of gymnasium from the same state."""
    single = envs.make(env_id)
    spec, num_steps = single.spec, 300
    actions = random_actions(spec, (num_steps,))
    first, _ = jax.jit(single.reset)(jax.random.split(KEY)[0])
    _, states, steps = jax.device_get(rollout(single, KEY, actions))
    theirs = gymnasium.make(env_id).unwrapped
    theirs.reset(seed=0)
    state = np.array(jax.tree.map(np.float64, state_vector(wrapped.innermost(first))))
    states, num_terminated = wrapped.innermost(states), 0
    for t in range(num_steps):
        theirs.state = state.tolist() if env_id.startswith("Cart") else state.copy()
        theirs.steps_beyond_terminated = None
        action = int(actions[t]) if spec.num_actions else np.asarray(actions[t], np.float64)
        obs, reward, terminated, *_ = theirs.step(action)
        np.testing.assert_allclose(steps.next_obs[t], obs, atol=tolerance, rtol=tolerance)
        np.testing.assert_allclose(steps.reward[t], reward, atol=tolerance, rtol=tolerance)
        assert steps.terminated[t] == terminated
        num_terminated += bool(terminated)
        state = np.array([np.float64(x[t]) for x in state_vector(states)])
    assert (num_terminated > 5) == (env_id == "CartPole-v1")


@pytest.mark.parametrize(
    ("env_id", "limit"),
    [("CartPole-v1", 7), ("Pendulum-v1", 5), ("Breakout-MinAtar", 6), ("FrozenLake-misc", 2)],
)
def test_episodes_are_truncated_at_exactly_the_limit(env_id, limit):
    env = envs.build(env_id, 3, max_episode_steps=limit)
    assert env.spec.max_episode_steps == limit
    _, _, steps = rollout(env, KEY, random_actions(env.spec, (4 * limit, 3)))
    done = np.asarray(steps.terminated | steps.truncated)
    for b in range(3):
        starts = [0, *(np.flatnonzero(done[:, b]) + 1)]
        lengths = np.diff(starts)
        truncated = np.asarray(steps.truncated)[done[:, b], b]
        assert (lengths[truncated] == limit).all()
        assert (lengths <= limit).all()
        assert len(lengths) >= 3


def test_initial_states_are_distributed_as_in_gymnax():
    env = envs.build("CartPole-v1", 64)
    _, _, steps = jax.device_get(rollout(env, KEY, random_actions(env.spec, (150, 64))))
    starts = steps.obs[steps.terminated]
    assert len(starts) > 300
    reset = jax.vmap(adapter.load_gymnax().make("CartPole-v1")[0].reset)
    theirs = np.asarray(reset(jax.random.split(jax.random.key(5), 2000))[0])
    for i in range(4):
        assert stats.ks_2samp(starts[:, i], theirs[:, i]).pvalue > 0.01
        assert stats.kstest(starts[:, i], "uniform", (-0.05, 0.1)).pvalue > 0.01
    assert len(np.unique(starts[:, 0])) == len(starts)


@pytest.mark.parametrize("env_id", adapter.registered())
def test_every_registered_environment_runs(env_id):
    if env_id in UNSUPPORTED:
        pytest.skip(UNSUPPORTED[env_id])
    env = envs.build(env_id, 3)
    assert env.spec.env_id == env_id
    actions = random_actions(env.spec, (20, 3))
    first, _, steps = jax.device_get(rollout(env, KEY, actions))
    assert first.shape == (3, *env.spec.obs_shape)
    assert steps.next_obs.shape == steps.obs.shape == (20, 3, *env.spec.obs_shape)
    assert steps.reward.dtype == np.float32
    assert np.isfinite(steps.reward).all()
    assert np.isfinite(steps.next_obs).all()
    assert steps.terminated.dtype == steps.truncated.dtype == bool
    assert not (steps.terminated & steps.truncated).any()
    if env.spec.num_states:
        assert ((first >= 0) & (first < env.spec.num_states)).all()


def test_missing_data_is_named_and_not_downloaded(monkeypatch, tmp_path):
    adapter.load_gymnax()
    from gymnax.utils import load_mnist

    def urlretrieve(url, file):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(load_mnist, "urlretrieve", urlretrieve)
    monkeypatch.setattr(adapter, "MNIST", tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(ValueError, match="needs the data set MNIST: put train-labels-idx1-ubyte"):
        envs.make("MNISTBandit-bsuite")
    assert "MNISTBandit-bsuite" not in envs.environment_ids()
    for name in adapter.MNIST_FILES:
        (tmp_path / name).touch()
    assert "MNISTBandit-bsuite" in envs.environment_ids()


SCRIPT = """
import sys
import rljax.envs, rljax.rendering.frames, rljax.envs.wrappers
heavy = [name for name in ("gymnax", "matplotlib", "seaborn", "PIL") if name in sys.modules]
assert not heavy, heavy
env = rljax.envs.make("Breakout-MinAtar")
assert "gymnax" in sys.modules
heavy = [name for name in sys.modules if name.split(".")[0] in ("matplotlib", "seaborn", "pandas")]
assert not heavy, heavy
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot
assert matplotlib.__version__ and hasattr(matplotlib.pyplot, "subplots")
import gymnax, jax
from gymnax.visualize import Visualizer
breakout, params = gymnax.make("Breakout-MinAtar")
state = breakout.reset(jax.random.key(0), params)[1]
Visualizer(breakout, params, [state, state]).animate(sys.argv[1])
catch, params = gymnax.make("Catch-bsuite")
figure, axes = catch.render(catch.reset(jax.random.key(0), params)[1], params)
assert isinstance(figure, matplotlib.figure.Figure)
"""


def test_plotting_libraries_are_imported_when_they_are_used(tmp_path):
    picture = tmp_path / "breakout.gif"
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(picture)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"GIF8")
