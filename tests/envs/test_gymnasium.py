import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.suite_helpers import PPO, learned_value, play

import rljax
from rljax import envs
from rljax.envs import host, memory, wrappers
from rljax.experiment.evaluation import in_suite
from rljax.experiment.make_plan import make_plan
from rljax.ops.observations import action_struct

gymnasium = pytest.importorskip("gymnasium")
from rljax.envs import gymnasium as adapter  # noqa: E402

KEY = jax.random.key(0)
B, T = 3, 60


class Clock(gymnasium.Env):
    """Observes the time; terminates after `length` steps. Every reward is 2 for action `start`."""

    observation_space = gymnasium.spaces.Dict(
        time=gymnasium.spaces.Box(0, 100, (1,), np.float64),
        parity=gymnasium.spaces.Discrete(2, start=5),
        parts=gymnasium.spaces.MultiDiscrete([2, 3]),
        signs=gymnasium.spaces.MultiBinary(2),
        image=gymnasium.spaces.Box(0, 255, (2, 2, 1), np.uint8),
    )
    action_space = gymnasium.spaces.Discrete(2, start=3)

    def __init__(self, length=4, reward=None):
        self.length, self.reward, self.time = length, reward, 0

    def observe(self):
        return {
            "time": np.array([self.time], np.float64), "parity": 5 + self.time % 2,
            "parts": np.array([self.time % 2, self.time % 3]),
            "signs": np.array([1, 0], np.int8), "image": np.full((2, 2, 1), self.time, np.uint8),
        }  # fmt: skip

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action):
        self.time += 1
        reward = 2.0 * (action == 3) if self.reward is None else self.reward
        return self.observe(), reward, self.time >= self.length, False, {}


class Fields(gymnasium.Env):
    """An environment with the given spaces."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


@pytest.fixture(scope="module", autouse=True)
def clock_id():
    gymnasium.register("rljax-test/Clock-v0", Clock, max_episode_steps=6)
    yield
    del gymnasium.registry["rljax-test/Clock-v0"]


def random_actions(spec, shape):
    struct = action_struct(spec)
    if spec.num_actions:
        return jax.random.randint(KEY, (*shape, *struct.shape), 0, jnp.array(spec.num_actions))
    uniform = jax.random.uniform(KEY, (*shape, *struct.shape))
    low, high = (np.broadcast_to(x, uniform.shape) for x in (spec.action_low, spec.action_high))
    return low + uniform * (high - low)


def seeds_of(key, num_envs):
    return jax.random.randint(key, (num_envs,), 0, host.NUM_SEEDS).tolist()


def test_ids_are_those_that_can_be_made():
    names = adapter.registered()
    assert {"CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1"} <= set(names)
    assert "rljax-test/Clock-v0" in names
    assert not {"CartPole-v0", "Reacher-v2", "phys2d/CartPole-v1", "GymV21Environment-v0"} & {
        *names
    }
    box2d = adapter.importlib.util.find_spec("Box2D")
    assert ("LunarLander-v3" in names) == bool(box2d)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Blackjack-v1"])
def test_well_formed(env_id):
    envs.validate(envs.make(f"gymnasium/{env_id}"))
    assert not host._OPEN  # `check_env` closes what it opened


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "FrozenLake-v1"])
def test_same_steps_as_gymnasium(env_id):
    env = envs.build(f"gymnasium/{env_id}", B, vectorization_mode="sync")
    actions = random_actions(env.spec, (T, B))
    obs, steps = play(env, actions)
    dtype = action_struct(env.spec).dtype
    for i, seed in enumerate(seeds_of(KEY, B)):
        original = gymnasium.make(env_id)
        np.testing.assert_array_equal(obs[i], np.float32(original.reset(seed=seed)[0]))
        for t in range(T):
            action = np.asarray(actions[t, i], dtype)
            result = original.step(action if env.spec.action_shape else int(action))
            next_obs, reward, terminated, truncated, _ = result
            np.testing.assert_array_equal(steps.next_obs[t, i], np.float32(next_obs))
            np.testing.assert_array_equal(steps.reward[t, i], np.float32(reward))
            assert steps.terminated[t, i] == terminated
            assert steps.truncated[t, i] == (truncated and not terminated)
            if terminated or truncated:
                next_obs = original.reset()[0]
            np.testing.assert_array_equal(steps.obs[t, i], np.float32(next_obs))


def test_vectorized_cartpole_has_the_dynamics_of_one():
    env = envs.build("gymnasium/CartPole-v1", B, max_episode_steps=15)
    actions = random_actions(env.spec, (200, B))
    obs, steps = play(env, actions)
    original = gymnasium.make("CartPole-v1").unwrapped
    original.reset()
    before = np.concatenate([obs[None], steps.obs[:-1]])
    age = np.zeros(B, int)
    for t, i in np.ndindex(200, B):
        original.state = before[t, i].astype(np.float64)
        original.steps_beyond_terminated = None
        next_obs, reward, terminated, _, _ = original.step(int(actions[t, i]))
        age[i] += 1
        np.testing.assert_allclose(steps.next_obs[t, i], next_obs, atol=1e-5)
        assert (steps.reward[t, i], steps.terminated[t, i]) == (reward, terminated)
        assert steps.truncated[t, i] == (age[i] == 15 and not terminated)
        if terminated or age[i] == 15:
            age[i] = 0
            assert (np.abs(steps.obs[t, i]) <= 0.05).all()
        else:
            np.testing.assert_array_equal(steps.obs[t, i], steps.next_obs[t, i])
    assert steps.truncated.any() and steps.terminated.any()


def test_final_observations_flags_and_trees():
    env = envs.build("gymnasium/rljax-test/Clock-v0", 2, length=4)
    assert env.spec.obs_shape == {
        "time": (1,), "parity": (2,), "parts": (5,), "signs": (2,), "image": (2, 2, 1)
    }  # fmt: skip
    assert env.spec.obs_dtype["image"] == "uint8" and env.spec.obs_dtype["time"] == "float32"
    obs, steps = play(env, jnp.array([[0, 1]] * 9))
    np.testing.assert_array_equal(steps.next_obs["time"][:, 0, 0], [1, 2, 3, 4, 1, 2, 3, 4, 1])
    np.testing.assert_array_equal(steps.obs["time"][:, 1, 0], [1, 2, 3, 0, 1, 2, 3, 0, 1])
    np.testing.assert_array_equal(steps.next_obs["image"][:4, 0, 1, 1, 0], [1, 2, 3, 4])
    np.testing.assert_array_equal(steps.next_obs["parity"][:2, 0], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(steps.next_obs["parts"][3, 0], [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(steps.reward, [[2.0, 0.0]] * 9)
    assert steps.terminated.sum() == 4 and not steps.truncated.any()


@pytest.mark.slow
def test_async_takes_the_same_steps():
    one, other = (
        envs.build("gymnasium/Pendulum-v1", 2, vectorization_mode=mode, max_episode_steps=5)
        for mode in ("sync", "async")
    )
    actions = random_actions(one.spec, (12, 2))
    jax.tree.map(np.testing.assert_array_equal, play(one, actions), play(other, actions))


@pytest.mark.parametrize("params", [{"length": 100}, {"length": 100, "max_episode_steps": 5}])
def test_the_time_limit_truncates(params):
    limit = params.get("max_episode_steps", 6)
    env = envs.build("gymnasium/rljax-test/Clock-v0", 2, **params)
    assert env.spec.max_episode_steps == limit
    _, steps = play(env, jnp.zeros((9, 2), int))
    assert not steps.terminated.any()
    np.testing.assert_array_equal(np.flatnonzero(steps.truncated[:, 0]), [limit - 1])
    assert steps.next_obs["time"][limit - 1, 0, 0] == limit
    assert steps.obs["time"][limit - 1, 0, 0] == 0


def test_a_step_that_terminates_at_the_limit_is_not_truncated():
    _, steps = play(
        envs.build("gymnasium/rljax-test/Clock-v0", 1, length=6), jnp.zeros((6, 1), int)
    )
    assert steps.terminated[5, 0] and not steps.truncated.any()


def test_spaces():
    spaces = gymnasium.spaces
    box = spaces.Box(-1, 1, (2,))

    def spec_of(obs, action):
        return envs.make(Fields(obs, action)).spec

    assert spec_of(box, spaces.MultiDiscrete([2, 3])).num_actions == (2, 3)
    assert spec_of(box, spaces.MultiBinary(3)).num_actions == (2, 2, 2)
    assert spec_of(spaces.Discrete(4), spaces.Discrete(2)).num_states == 4
    assert spec_of(spaces.Tuple([box, spaces.Discrete(3)]), box).obs_shape == ((2,), (3,))
    with pytest.raises(ValueError, match="observations in the space Text.*wrap the environment"):
        spec_of(spaces.Text(3), box)
    with pytest.raises(ValueError, match="actions in the space Dict.*Box of floats"):
        spec_of(box, spaces.Dict(a=box))
    with pytest.raises(ValueError, match="actions in the space Box.*int"):
        spec_of(box, spaces.Box(0, 3, (1,), np.int64))


def test_errors_name_the_fault():
    with pytest.raises(ValueError, match="did you mean `gymnasium/CartPole-v1`"):
        envs.make("gymnasium/CartPol-v1")
    with pytest.raises(ValueError, match="did you mean `sutton_barto_reward`"):
        envs.make("gymnasium/CartPole-v1", sutton_barto_rewards=True)
    with pytest.raises(ValueError, match='must be "vector_entry_point" or "sync"'):
        envs.make("gymnasium/CartPole-v1", vectorization_mode="vector")
    with pytest.raises(ValueError, match="single environment"):
        envs.make(gymnasium.make_vec("CartPole-v1", 2))
    with pytest.raises(ValueError, match="runs on the host"):
        wrappers.time_limit(envs.make("gymnasium/CartPole-v1"), 10)
    with pytest.raises(ValueError, match="runs on the host"):
        envs.make(envs.make("gymnasium/CartPole-v1"), max_episode_steps=10)


def test_equal_keys_give_equal_episodes_and_others_do_not():
    env = envs.build("gymnasium/CartPole-v1", B)
    actions = random_actions(env.spec, (T, B))
    first, again = play(env, actions), play(env, actions)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (play(env, actions, jax.random.key(1))[0] != first[0]).all()


def test_runs_side_by_side_have_environments_of_their_own():
    env = envs.build("gymnasium/CartPole-v1", 2)
    actions = random_actions(env.spec, (T, 2))
    keys = jax.random.split(KEY, 3)

    @jax.jit
    def run(keys):
        states, obs = jax.vmap(env.reset)(keys)
        states, steps = jax.lax.scan(
            lambda s, a: jax.vmap(env.step, (0, None, None))(s, a, KEY), states, actions
        )
        host.close(states)
        return obs, steps

    obs, steps = run(keys)
    for i, key in enumerate(keys):
        alone = play(env, actions, key)
        jax.tree.map(np.testing.assert_array_equal, alone[0], obs[i])
        jax.tree.map(
            np.testing.assert_array_equal, alone[1], jax.tree.map(lambda x: x[:, i], steps)
        )


def test_a_repeated_step_is_taken_once_and_an_earlier_state_is_refused():
    env = envs.build("gymnasium/CartPole-v1", 1)
    start, _ = env.reset(KEY)
    action = jnp.zeros(1, jnp.int32)
    state, step = env.step(start, action, KEY)
    again, same = env.step(start, action, KEY)
    jax.tree.map(np.testing.assert_array_equal, (state, step), (again, same))
    for action in (0, 1):  # not the last call: other actions, or an earlier state
        with pytest.raises(Exception, match="cannot go back to an earlier state"):
            env.step(start, jnp.array([1]), KEY)
        state, _ = env.step(state, jnp.array([action]), KEY)
    host.close(state)
    with pytest.raises(Exception, match="closed or belong to another process"):
        env.step(state, action, KEY)


def test_pools_end_with_their_environment():
    env = envs.make(Clock())
    number = int(env.reset(KEY)[0].pool)
    assert number in host._OPEN
    del env
    jax.clear_caches()
    gc.collect()
    assert number not in host._OPEN


def test_objects_train_and_pools_are_closed():
    before = set(host._OPEN)
    env = gymnasium.make("CartPole-v1", max_episode_steps=50)
    run = rljax.train(
        "ppo", env, total_timesteps=512, num_envs=2, num_steps=64, eval_episodes=3, progress=False
    )
    assert run.env_id == "CartPole-v1" and run.evaluation["lengths"].max() <= 50
    assert set(host._OPEN) == before


@pytest.mark.parametrize(("agent", "options"), [
    ("dqn", {"learning_starts": 128, "n_step": 1, "num_seeds": 2}), ("q_learning", {}),
    ("ppo", {"memory": "gru", "num_steps": 64, "num_minibatches": 1, "num_seeds": 3}),
])  # fmt: skip
def test_agents(agent, options, tmp_path):
    env_id = "FrozenLake-v1" if agent == "q_learning" else "CartPole-v1"
    options = {"total_timesteps": 512, "eval_episodes": 2, "num_reports": 2} | options

    def train():
        return rljax.train(agent, f"gymnasium/{env_id}", progress=False, **options)

    first, again = train(), train()
    np.testing.assert_array_equal(first.metrics["charts/reward"], again.metrics["charts/reward"])
    np.testing.assert_array_equal(first.evaluation["returns"], again.evaluation["returns"])


def test_memory_is_reset_where_an_episode_ends():
    env = wrappers.batched(memory.carry_memory(envs.make(Clock()), jnp.zeros(2)), 3)
    state, obs = env.reset(KEY)
    assert obs.memory.shape == (3, 2)
    for time in range(1, 5):
        state, step = env.step(state, (jnp.zeros(3, jnp.int32), jnp.full((3, 2), time)), KEY)
    assert step.terminated.all()
    np.testing.assert_array_equal(step.next_obs.memory, np.full((3, 2), 4))
    np.testing.assert_array_equal(step.obs.memory, np.zeros((3, 2)))


def test_resume_continues_from_a_reset_and_says_so(tmp_path, monkeypatch):
    from rljax.experiment import loop

    options = {"total_timesteps": 1024, "num_envs": 2, "num_steps": 64, "num_seeds": 2,
               "eval_episodes": 0, "num_reports": 8}  # fmt: skip

    def stop(self):
        raise KeyboardInterrupt

    advance = loop.TrainingLoop._advance

    def advance_half(self, size):
        report = advance(self, size)
        if self.num_updates >= 4:
            self._save(self.snapshot())
            stop(self)
        return report

    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainingLoop, "_advance", advance_half)
        with pytest.raises(KeyboardInterrupt):
            rljax.train(
                "ppo", "gymnasium/CartPole-v1", run_dir=tmp_path / "a", progress=False, **options
            )
    with pytest.warns(UserWarning, match="runs on the host and cannot be restored"):
        run = rljax.resume(tmp_path / "a", progress=False, eval_episodes=0)
    assert run.steps[-1] == 1024 and np.isfinite(run.returns).all()
    assert run.state.num_updates.tolist() == [8, 8]
    rljax.resume(tmp_path / "a", progress=False, eval_episodes=0)  # complete: no warning


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1"])
def test_policies_play_in_the_original(env_id):
    agent = {"Pendulum-v1": "td3"}.get(env_id, "dqn")
    plan = make_plan(agent, env_id, env_params={"max_episode_steps": 30})
    other = in_suite(plan, "gymnasium")
    assert (other.env_id, other.env.spec.max_episode_steps) == (f"gymnasium/{env_id}", 30)
    assert other.env.batch is not None


def test_command_line_evaluates_in_the_original(tmp_path, capsys):
    from rljax.cli import commands

    run_dir = str(tmp_path / "run")
    rljax.train("ppo", "CartPole-v1", run_dir=run_dir, total_timesteps=512, num_steps=64,
                eval_episodes=0, progress=False)  # fmt: skip
    commands.evaluate([run_dir], {"in": "gymnasium", "num_episodes": "3"})
    assert "3 episodes each" in capsys.readouterr().out
    rows = rljax.evaluate(run_dir, 3, suite="gymnasium")
    assert rows["returns"].shape == (1, 3) and rows["returns"].min() >= 8
    with pytest.raises(ValueError, match="its `obs_shape` is"):
        rljax.evaluate(run_dir, 3, suite="partial")


def test_a_time_limit_is_bootstrapped():
    """The value of a reward of 1 is 10 for gamma 0.9; 8.8 if the limit were a termination."""
    assert 9.7 < learned_value(Clock(length=1000, reward=1.0)) < 10.3


@pytest.mark.slow
def test_ppo_solves_cartpole_in_50k_steps():
    run = rljax.train("ppo", "gymnasium/CartPole-v1", total_timesteps=50_000, num_envs=8,
                      progress=False, **PPO)  # fmt: skip
    assert run.evaluation["returns"].mean() > 450
