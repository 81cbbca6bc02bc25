"""gymnax environments: dynamics against gymnasium, resets against gymnax, ids, parameters."""

import subprocess
import sys
import urllib.error

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rljax import envs
from rljax.envs import gymnax as adapter
from rljax.envs import wrappers
from rljax.types import Env, EnvSpec, Step

KEY = jax.random.key(0)
QUICK = {"xla_backend_optimization_level": 0}  # halves the time to compile
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


def rollout(env, key, actions):
    """`(first obs, states [T, ...], Step [T, ...])`."""

    def run(key, actions):
        reset_key, key = jax.random.split(key)
        state, obs = env.reset(reset_key)

        def env_step(state, inputs):
            state, step = env.step(state, *inputs)
            return state, (state, step)

        inputs = actions, env.sample_noise(key, len(actions))
        return obs, *jax.lax.scan(env_step, state, inputs)[1]

    return jax.jit(run, compiler_options=QUICK)(key, actions)


# Dynamics


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
    state = np.array(jax.tree.map(np.float64, state_vector(wrappers.innermost(first))))
    states, num_terminated = wrappers.innermost(states), 0
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


def test_missing_data_is_named(monkeypatch):
    def offline(url, file):
        raise urllib.error.URLError("offline")

    adapter.load_gymnax()
    from gymnax.utils import load_mnist

    monkeypatch.setattr(load_mnist, "urlretrieve", offline)
    monkeypatch.setattr(load_mnist.path, "isfile", lambda path: False)
    with pytest.raises(ValueError, match="MNISTBandit-bsuite loads data that cannot be read"):
        envs.make("MNISTBandit-bsuite")


# Ids and parameters


def test_ids():
    ids = envs.environment_ids()
    assert set(adapter.registered()) <= set(ids)
    assert envs.make("gymnax/CartPole-v1").spec == envs.make("CartPole-v1").spec


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("cartpole", "no environment `cartpole`: did you mean `CartPole-v1`?"),
        ("CartPole-v2", "no environment `CartPole-v2`: did you mean `CartPole-v1`?"),
        ("gymnax/Breakout", "did you mean `Breakout-MinAtar`? `rljax list` shows all"),
        ("gymnacks/CartPole-v1", "suite `gymnacks` of `gymnacks/CartPole-v1`: did you mean `Cart"),
        ("gymnacks/ant", "suite `gymnacks` of `gymnacks/ant`: the suites are gymnax, rljax"),
        ("CartPole/v1", "no environment suite `CartPole` of `CartPole/v1`: the suites are"),
    ],
)
def test_unknown_ids_name_the_nearest(env_id, message):
    with pytest.raises(ValueError) as error:
        envs.make(env_id)
    assert message in str(error.value)


@pytest.fixture
def missing_suite(monkeypatch):
    """Registers a suite whose package is not installed."""
    suite = envs.Suite("no_such_package.envs", "rljax-research[missing]")
    monkeypatch.setitem(envs.SUITES, "missing", suite)


def test_suites_that_are_not_installed_are_left_out_of_listings(missing_suite):
    assert "CartPole-v1" in envs.environment_ids()
    assert not any(env_id.startswith("missing") for env_id in envs.environment_ids())
    with pytest.raises(ValueError, match="there is no environment `CartPole-v2`"):
        envs.make("CartPole-v2")


def test_the_error_for_a_suite_that_is_not_installed_names_the_extra(missing_suite):
    with pytest.raises(ValueError) as error:
        envs.make("missing/Ant")
    assert str(error.value) == (
        "`missing/Ant` needs the package `no_such_package`, which cannot be imported. Install it "
        "with `pip install 'rljax-research[missing]'`."
    )


def test_parameters_reach_the_environment_and_its_constructor():
    still = envs.make("CartPole-v1", gravity=0.0, force_mag=0.0)
    _, _, steps = rollout(still, KEY, jnp.zeros(5, int))
    np.testing.assert_allclose(np.diff(steps.next_obs[:, 3]), 0, atol=1e-6)
    dry = envs.make("FrozenLake-misc", is_slippery=False, max_episode_steps="50")
    assert dry.spec.max_episode_steps == 50
    assert dry.spec.num_states == 16
    _, _, steps = rollout(dry, KEY, jnp.array([2, 2, 1, 1, 1, 2]))
    assert steps.next_obs.tolist() == [1, 2, 6, 10, 14, 15]
    assert steps.reward.tolist() == [0, 0, 0, 0, 0, 1]
    assert envs.make("FrozenLake-misc", map_name="8x8").spec.num_states == 64


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gravty": 1.0}, "CartPole-v1 has no option `gravty`: did you mean `gravity`?"),
        ({"max_episode_steps": 0}, "`max_episode_steps` is 0, but it must be at least 1."),
        ({"max_episode_steps": 2.5}, "`max_episode_steps` is 2.5, but it must be an integer."),
        ({"gravity": "low"}, "`gravity` is 'low', but it must be a number."),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(ValueError) as error:
        envs.make("CartPole-v1", **params)
    assert message in str(error.value)


def test_an_env_is_returned_unchanged():
    def step(state, action, noise):
        obs = state[None].astype(jnp.float32) + 1
        return state + 1, Step(obs, jnp.float32(1), jnp.bool(False), jnp.bool(False), obs)

    mine = Env(
        EnvSpec((1,), num_actions=2, env_id="Mine"), lambda key: (jnp.int32(0), jnp.zeros(1)), step
    )
    assert envs.make(mine) is mine
    limited = envs.make(mine, max_episode_steps=3)
    _, _, steps = rollout(limited, KEY, jnp.zeros(4, int))
    assert steps.truncated.tolist() == [False, False, True, False]
    assert steps.next_obs[:, 0].tolist() == [1, 2, 3, 1]
    with pytest.raises(
        ValueError, match="Mine is an `Env`, so its parameter `speed` cannot be set"
    ):
        envs.make(mine, speed=1)


# Objects


def corridor(base, **methods):
    """Returns a gymnax environment of 3 steps to the right, with `methods` added."""

    def reset_env(self, key, params):
        return jnp.zeros(1), {"x": 0, "time": 0}

    def step_env(self, key, state, action, params):
        state = {"x": state["x"] + action, "time": state["time"] + 1}
        obs = jnp.float32(state["x"])[None]
        return obs, state, 1, state["x"] >= 3, {}

    spaces = sys.modules["gymnax"].environments.spaces
    body = {
        "reset_env": reset_env,
        "step_env": step_env,
        "default_params": None,
        "action_space": lambda self, params: spaces.Discrete(2),
        "observation_space": lambda self, params: spaces.Box(0, 9, (1,)),
    }
    return type("Corridor", (base,), body | methods)()


def test_objects_with_and_without_parameters():
    cart_pole, params = adapter.load_gymnax().make("CartPole-v1")
    assert envs.make(cart_pole).spec.max_episode_steps == 500
    pair = cart_pole, params.replace(max_steps_in_episode=9)
    assert envs.make(pair).spec.max_episode_steps == 9


def test_a_time_limit_is_added_to_an_object_without_one():
    adapter.load_gymnax()
    mine = corridor(object, is_truncated=lambda self, state, params: jnp.bool(False))
    env = envs.make(mine, max_episode_steps=4)
    _, _, steps = rollout(env, KEY, jnp.array([0, 1, 0, 0, 1, 1, 1]))
    assert steps.truncated.tolist() == [False, False, False, True, False, False, False]
    assert steps.terminated.tolist() == [False] * 6 + [True]
    assert steps.reward.dtype == jnp.float32


def test_environments_for_gymnax_before_1_are_refused():
    base = adapter.load_gymnax().environments.environment.Environment
    with pytest.raises(ValueError, match=r"Corridor is written for gymnax before 1.0"):
        envs.make(corridor(object))
    old = corridor(base, is_terminal=lambda self, state, params: state["time"] >= 9)
    with pytest.raises(ValueError, match=r"Corridor is written for gymnax before 1.0"):
        envs.make(old)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (object, "`env` is the class object, but it must be an environment. Pass an instance"),
        (3, "`env` is 3 of type int, but it must be an id such as"),
        (None, "`env` is None of type NoneType, but it must be an id such as"),
        (gymnasium.make("CartPole-v1"), "of type TimeLimit, but it must be an id such as"),
    ],
)
def test_objects_of_other_types_are_refused(wrong, message):
    with pytest.raises(ValueError) as error:
        envs.make(wrong)
    assert message in str(error.value)


def test_objects_without_a_method_of_gymnax_are_refused():
    never = {"is_truncated": lambda self, state, params: jnp.bool(False)}
    env = corridor(object, **never)
    del type(env).step_env
    with pytest.raises(ValueError, match="Corridor has no `step_env`, which a gymnax env"):
        envs.make(env)


def test_unsupported_spaces_are_refused():
    spaces = adapter.load_gymnax().environments.spaces
    never = {"is_truncated": lambda self, state, params: jnp.bool(False)}
    dict_obs = {"observation_space": lambda self, params: spaces.Dict({"a": spaces.Discrete(2)})}
    with pytest.raises(ValueError, match="Corridor has observations in a Dict space, which no"):
        envs.make(corridor(object, **never, **dict_obs))
    tuple_action = {"action_space": lambda self, params: spaces.Tuple([spaces.Discrete(2)])}
    with pytest.raises(ValueError, match="Corridor has actions in a Tuple space, but rljax needs"):
        envs.make(corridor(object, **never, **tuple_action))
    unbounded = {"action_space": lambda self, params: spaces.Box(-jnp.inf, jnp.inf, (2,))}
    with pytest.raises(ValueError, match=r"`action_low` is .* set finite bounds and clip"):
        envs.make(corridor(object, **never, **unbounded))


def test_a_step_env_with_six_outputs_is_refused():
    adapter.load_gymnax()
    env = corridor(
        object,
        is_truncated=lambda self, state, params: jnp.bool(False),
        step_env=lambda self, key, state, action, params: (state, state, 1, False, False, {}),
    )
    with pytest.raises(ValueError, match="`step_env` of Corridor returns 6 values"):
        envs.make(env)


# Imports

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
