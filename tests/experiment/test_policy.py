"""`Result.policy`: a trained policy as a function of NumPy observations."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from masked_environments import LEGAL, NUM_STATES, masked_process
from policies import random_observations, random_policy, random_state

import rljax
from rljax.envs import make
from rljax.experiment.make_plan import make_plan
from rljax.experiment.policy import Policy
from rljax.types import Env, EnvSpec, RecurrentObs, Step

pytestmark = pytest.mark.usefixtures("quick_compiles")

PETS = {
    "horizon": 3, "num_candidates": 6, "num_elite_plans": 2, "num_iterations": 2,
    "num_particles": 5,
}  # fmt: skip
CASES = [
    ("q_learning", "rljax/Maze", {}),
    ("td", "rljax/Maze", {}),
    ("value_iteration", "rljax/Maze", {}),
    ("dqn", "CartPole-v1", {"dueling": True, "normalize_obs": True}),
    ("rainbow", "CartPole-v1", {}),
    ("discrete_sac", "CartPole-v1", {}),
    ("sac", "Pendulum-v1", {"noise": "ornstein_uhlenbeck"}),
    ("td3", "Pendulum-v1", {}),
    ("pqn", "CartPole-v1", {}),
    ("reinforce", "CartPole-v1", {"normalize_obs": True}),
    ("a2c", "partial/CartPole-v1", {"memory": "gru"}),
    ("impala", "Pendulum-v1", {"normalize_obs": True}),
    ("mbpo", "Pendulum-v1", {}),
    ("pets", "Pendulum-v1", PETS),
    ("muzero", "CartPole-v1", {"num_simulations": 2, "num_considered_actions": 2}),
]


def relu(x):
    return np.maximum(x, 0)


def dense(params, name, x):
    return x @ params[f"{name}/kernel"] + params[f"{name}/bias"]


def test_discrete_actions_are_those_of_the_network_in_numpy():
    options = {"activation": "tanh", "normalize_obs": False, "normalize_reward": False}
    policy = random_policy("ppo", "CartPole-v1", **options)
    obs, params = random_observations(policy, 200), policy.params
    assert all(name.startswith("params/params/") for name in params)
    params = {name.removeprefix("params/params/"): x for name, x in params.items()}
    hidden = np.tanh(dense(params, "actor/Dense_0", obs))
    hidden = np.tanh(dense(params, "actor/Dense_1", hidden))
    expected = dense(params, "logits", hidden).argmax(axis=-1)
    np.testing.assert_array_equal(policy(obs), expected)
    assert 20 < expected.sum() < 180  # the policy is not constant
    actions = [policy(x) for x in obs]
    assert actions == expected.tolist() and {type(x) for x in actions} == {int}


def test_continuous_actions_are_normalized_and_scaled_as_in_training():
    """In NumPy: standardized observation, network, clipping, and the box of the environment."""
    policy = random_policy("ppo", "Pendulum-v1", normalize_obs=True, activation="relu")
    obs, params = random_observations(policy, 50), policy.params
    z = (obs - params["obs/mean"]) / np.sqrt(params["obs/variance"] + 1e-8)
    params = {name.removeprefix("agent/params/params/"): x for name, x in params.items()}
    hidden = relu(dense(params, "actor/Dense_0", np.clip(z, -10, 10)))
    hidden = relu(dense(params, "actor/Dense_1", hidden))
    expected = 2 * np.clip(dense(params, "mean", hidden), -1, 1)  # torques in [-2, 2]
    np.testing.assert_allclose(policy(obs), expected, rtol=1e-4, atol=1e-4)
    action = policy(obs[0])
    assert action.shape == (1,) and action.dtype == np.float32
    np.testing.assert_allclose(action, expected[0], rtol=1e-4, atol=1e-4)
    action += 1  # environments may change an action in place


@pytest.mark.parametrize(("name", "env", "options"), CASES, ids=[case[0] for case in CASES])
def test_policies_act_as_in_evaluation(name, env, options):
    """For a batch and for one observation, the actions are those of `Agent.greedy`."""
    plan = make_plan(name, env, **options)
    state = random_state(plan)
    policy = Policy(plan, 0, state, random_seed=3)
    obs, key = random_observations(policy, 4), jax.random.fold_in(jax.random.key(3), 0)
    initial = plan.row.initial_memory(plan.config, plan.env.spec)
    seen = jax.tree.map(jnp.asarray, obs)
    if initial is not None:
        seen = RecurrentObs(seen, jnp.broadcast_to(initial, (4, *initial.shape)))
    spec = plan.env.spec._replace(num_envs=4)
    if not hasattr(plan.config, "buffer_size"):
        plan = plan._replace(env=plan.env._replace(spec=spec))
    agent = plan.make_agent(plan.config, plan.env)
    expected = jax.jit(agent.greedy)(state, seen, key)
    expected = np.asarray(expected if initial is None else expected[0])
    np.testing.assert_array_equal(policy(obs), expected)
    if not policy.program.is_random:
        policy.reset()
        one = policy(jax.tree.map(lambda x: x[1], obs))
        np.testing.assert_allclose(one, expected[1], rtol=1e-5, atol=1e-5)
        assert isinstance(one, int) == bool(plan.env.spec.num_actions)
    assert (policy.program.memory is not None) == (name in ("a2c", "pets"))


def test_a_recurrent_policy_acts_as_in_its_environment():
    """The actions of whole episodes are those of the agent in the environment with its memory."""
    plan = make_plan("ppo", "Pendulum-v1", env_params={"max_episode_steps": 7}, memory="gru")
    state, env = random_state(plan), plan.build_env(1)
    agent = plan.make_agent(plan.config, env)
    policy = Policy(plan, 0, state)

    @jax.jit
    def play(key):
        def one_step(carry, key):
            env_state, obs = carry
            action = agent.greedy(state, obs, key)
            noise = jax.tree.map(lambda x: x[0], env.sample_noise(key, 1))
            env_state, step = env.step(env_state, action, noise)
            return (env_state, step.obs), (obs.obs[0], action[0][0], step.truncated[0])

        return jax.lax.scan(one_step, env.reset(key), jax.random.split(key, 20))[1]

    observations, actions, ended = map(np.asarray, play(jax.random.key(0)))
    for obs, action, is_end in zip(observations, actions, ended, strict=True):
        np.testing.assert_allclose(policy(obs), action, rtol=1e-4, atol=1e-4)
        if is_end:
            policy.reset()
    assert ended.sum() == 2 and actions.std() > 0.1


def test_memories_of_a_batch_are_separate_and_reset_one_by_one():
    policy = random_policy("ppo", "Pendulum-v1", memory="gru")
    obs = random_observations(policy, 3)
    first, second = policy(obs), policy(obs)
    assert not np.allclose(first, second)  # the policy depends on its memory
    policy.reset(where=[True, False, True])
    third = policy(obs)
    np.testing.assert_allclose(third[[0, 2]], first[[0, 2]], rtol=1e-5)
    assert not np.allclose(third[1], first[1])
    with pytest.raises(ValueError, match="batch of 3, but got one observation: call `policy.reset"):
        policy(obs[0])
    with pytest.raises(ValueError, match=r"`where` has shape \(2,\), but the batch has 3"):
        policy.reset([True, False])
    policy.reset()
    np.testing.assert_allclose(policy(obs[1]), first[1], rtol=1e-5, atol=1e-6)
    policy.reset()
    np.testing.assert_allclose(policy(obs), first, rtol=1e-5)


def test_policies_without_memory_take_any_batch_size():
    policy = random_policy("dqn", "CartPole-v1")
    obs = random_observations(policy, 7)
    np.testing.assert_array_equal(policy(obs)[:2], policy(obs[:2]))
    policy.reset()
    with pytest.raises(ValueError, match=r"shape \(0, 4\)"):
        policy(obs[:0])


def test_sampling_follows_the_distribution_and_the_seed():
    plan = make_plan("ppo", "CartPole-v1")
    state = random_state(plan)
    policy = Policy(plan, 0, state, greedy=False, random_seed=5)
    obs = random_observations(policy, 1)
    agent = plan.make_agent(plan.config, plan.build_env(1))
    _, extras = agent.act(state, obs, agent.sample_noise(jax.random.key(0), 1)[0])
    logits = np.asarray(extras["policy"][0], np.float64)[0]
    probability = np.exp(logits) / np.exp(logits).sum()
    actions = policy(np.repeat(obs, 10_000, axis=0))
    assert abs(actions.mean() - probability[1]) < 4 * np.sqrt(0.25 / 10_000)
    batch = np.repeat(obs, 20, axis=0)
    again = [Policy(plan, 0, state, greedy=False, random_seed=seed) for seed in (5, 5, 6)]
    rows = np.array([[p(batch) for _ in range(3)] for p in again])
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).any() and (rows[0, 0] != rows[0, 1]).any()


def test_illegal_actions_are_never_taken():
    obs = {"state": np.arange(NUM_STATES), "legal": LEGAL}
    for greedy in (True, False):
        policy = random_policy("ppo", masked_process(), greedy=greedy)
        for _ in range(5):
            assert LEGAL[np.arange(NUM_STATES), policy(obs)].all()
    one = policy({"state": 3, "legal": LEGAL[3].astype(np.int8)})  # as gymnasium gives masks
    assert LEGAL[3, one]


def test_images_are_uint8():
    def reset(key):
        return jnp.int32(0), jnp.zeros((10, 10, 2), jnp.uint8)

    def step(state, action, key):
        obs, no = jnp.zeros((10, 10, 2), jnp.uint8), jnp.bool_(False)
        return state, Step(obs, jnp.float32(0), no, no, obs)

    spec = EnvSpec((10, 10, 2), 3, obs_dtype="uint8", env_id="images")
    policy = random_policy("dqn", Env(spec, reset, step))
    assert policy(random_observations(policy, 5)).shape == (5,)
    with pytest.raises(ValueError, match="dtype float32, but in images it is uint8"):
        policy(np.zeros((10, 10, 2), np.float32))
    with pytest.raises(ValueError, match="dtype int64"):
        policy(np.zeros((10, 10, 2), int))


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (np.zeros(3), r"shape \(3,\), but in CartPole-v1 it has \(4,\), or \[B, 4\] for a batch"),
        (np.zeros((1, 2, 4)), r"shape \(1, 2, 4\)"),
        ({"position": np.zeros(4)}, "dtype object"),
        (np.array(["a"] * 4), "dtype <U1, but in CartPole-v1 it is float32"),
        ([[0.0], [0.0, 1.0]], "is no array"),
    ],
)
def test_wrong_observations_are_refused(obs, message):
    policy = random_policy("dqn", "CartPole-v1")
    with pytest.raises(ValueError, match=message):
        policy(obs)
    assert policy(np.zeros(4)) == policy([0, 0, 0, 0])  # float64, and a list of integers


def test_wrong_states_and_trees_are_refused():
    policy = random_policy("q_learning", "rljax/Maze")
    with pytest.raises(ValueError, match="is 16, but states of rljax/Maze are numbered from 0"):
        policy(16)
    with pytest.raises(ValueError, match="dtype float64, but in rljax/Maze it is int32"):
        policy(1.0)
    policy = random_policy("q_learning", masked_process())
    with pytest.raises(ValueError, match="structure `legal`, `state`, but this one is a ndarray"):
        policy(np.zeros(2))
    with pytest.raises(ValueError, match="is a dict with `state`: pass it"):
        policy({"state": 0})
    with pytest.raises(ValueError, match=r"not of one batch.*`legal` \(2, 6\).*`state` \(\)"):
        policy({"state": 0, "legal": LEGAL[:2]})


def test_64_bit_types_change_nothing():
    obs = np.linspace(-1, 1, 12).reshape(3, 4)
    expected = random_policy("ppo", "CartPole-v1")(obs)
    with jax.enable_x64(True):
        policy = random_policy("ppo", "CartPole-v1")
        np.testing.assert_array_equal(policy(obs), expected)
        assert {x.dtype for x in policy.params.values()} == {np.dtype("float32")}


@pytest.fixture(scope="module")
def swept():
    return rljax.train(
        "dqn", "CartPole-v1", num_seeds=2, gamma=[0.9, 0.99], total_timesteps=512, num_envs=2,
        learning_starts=100, batch_size=8, hidden_sizes=(8,), eval_episodes=3, eval_interval=256,
        num_reports=2, normalize_obs=False, progress=False,
    )  # fmt: skip


def test_setting_seed_and_best_choose_the_run(swept):
    """The parameters are those of the run, final or best, without those of learning."""
    name = "learned/params/params/value/kernel"
    for setting in (0, 1):
        for seed in (0, 1):
            final = swept.params["params"]["value"]["kernel"][setting, seed]
            policy = swept.policy(setting, seed)
            np.testing.assert_array_equal(policy.params[name], final)
            best = swept.best.state.learned.params["params"]["value"]["kernel"][setting, seed]
            best_policy = swept.policy(setting, seed, best=True)
            np.testing.assert_array_equal(best_policy.params[name], best)
    assert all(name.startswith("learned/params/") for name in policy.params)
    assert repr(policy) == "<Policy dqn · CartPole-v1 · gamma 0.99, seed 1 · greedy>"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 2}, "`seed` is 2, but the run has 2 seeds: choose one from 0 to 1"),
        ({"setting": 2}, "`setting` is 2, but the run has 2 settings"),
        ({"seed": -1}, "`seed`"),
        ({"best": True, "greedy": False}, "kept for greedy actions alone"),
        ({"random_seed": -1}, "`seed`"),
    ],
)
def test_wrong_choices_are_refused(swept, options, message):
    with pytest.raises(ValueError, match=message):
        swept.policy(**options)


def test_there_is_no_policy_of_planners_that_need_the_simulator():
    with pytest.raises(ValueError, match="alphazero plans with the state of CartPole-v1"):
        random_policy("alphazero", "CartPole-v1", num_simulations=2)


def test_a_policy_plays_in_gymnasium():
    """Trained in rljax, it balances the pole of gymnasium; also in its vector environment."""
    run = rljax.train(
        "ppo", "CartPole-v1", total_timesteps=40_000, num_steps=64, learning_rate=1e-3,
        num_minibatches=4, normalize_obs=False, normalize_reward=False, eval_episodes=0,
        progress=False,
    )  # fmt: skip
    policy = run.policy()
    env = gymnasium.make("CartPole-v1")
    obs, _ = env.reset(seed=0)
    total, done = 0.0, False
    while not done:
        obs, reward, terminated, truncated, _ = env.step(policy(obs))
        total, done = total + float(reward), terminated or truncated
    assert total > 150  # a random policy reaches 20
    vector = gymnasium.make_vec("CartPole-v1", num_envs=3)
    obs, _ = vector.reset(seed=0)
    for _ in range(5):
        obs, reward, *_ = vector.step(policy(obs))
    assert reward.tolist() == [1, 1, 1]


def test_observations_of_gymnasium_are_converted_as_in_training():
    """Blackjack has tuples of numbers, of which the agent observes one-hot vectors."""
    policy = random_policy("dqn", "gymnasium/Blackjack-v1")
    one_hot = tuple(np.arange(size) == i for size, i in ((32, 14), (11, 10), (2, 0)))
    batch = (np.array([14, 20]), np.array([10, 3]), np.array([0, 1]))
    assert policy((14, 10, 0)) == policy(one_hot) == policy(batch)[0]
    env = gymnasium.make("Blackjack-v1")
    obs, _ = env.reset(seed=1)
    env.step(policy(obs))
    with pytest.raises(ValueError, match="Blackjack-v1"):
        policy((14, 10))


def test_no_policy_without_states_or_best(tmp_path):
    run = rljax.train(
        "q_learning", "rljax/Maze", total_timesteps=200, eval_episodes=0, progress=False,
        run_dir=tmp_path / "run",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"without its states: load it with `rljax.load"):
        rljax.load_result(tmp_path / "run").policy()
    with pytest.raises(ValueError, match="no best policy: train with `eval_interval`"):
        run.policy(best=True)
    assert make("rljax/Maze").spec.num_actions > run.policy()(0) >= 0
