"""DQN against a second, plainer implementation, and its promises one by one."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import bits, walk

import rljax
from rljax import config as configs
from rljax.agents.dqn import DQNConfig, dqn
from rljax.envs import wrappers
from rljax.experiment import checkpoint
from rljax.experiment.plan import make_plan
from rljax.networks import action_values
from rljax.ops import td
from rljax.replay import prioritized, ring
from rljax.training import parallel, runs
from rljax.training.learner import make_learner
from rljax.types import EnvSpec, Replay, Sample, Shared, Transition

pytestmark = pytest.mark.usefixtures("quick_compiles")

SPEC = EnvSpec(obs_shape=(3,), num_actions=4, num_envs=2)
N = 6
CONFIG = DQNConfig(
    num_envs=2, num_steps=3, total_timesteps=60, hidden_sizes=(5,), learning_rate=0.03, gamma=0.9,
    buffer_size=40, batch_size=N, learning_starts=6, train_frequency=6, gradient_steps=1,
    target_update_interval=6, tau=0.25, max_grad_norm=0.3, importance_exponent=0.4,
)  # fmt: skip


def make_batch(seed=0):
    """What a replay might give: six transitions, two deaths, one time limit."""
    rng = np.random.default_rng(seed)
    obs, next_obs = (jnp.asarray(x, jnp.float32) for x in rng.normal(size=(2, N, 3)))
    action, reward = jnp.asarray(rng.integers(4, size=N)), jnp.asarray(rng.normal(size=N), "f4")
    terminated = jnp.array([0, 1, 0, 0, 1, 0], bool)
    truncated = jnp.array([0, 0, 1, 0, 0, 0], bool)
    return Transition(obs, action, reward, terminated, truncated, next_obs)


def scripted(sample):
    """A replay that gives the same sample every time, and keeps what it is told of errors."""
    return Replay(
        init=lambda item: (jnp.zeros(N), jnp.zeros(N, jnp.int32)),
        add=lambda state, items: state,
        sample=lambda state, key: sample,
        reprioritize=lambda state, indices, td_error: (td_error, indices),
        size=lambda state: jnp.int32(N),
    )


def rollout_of(config, seed=1):
    rng = np.random.default_rng(seed)
    shape = config.num_steps, config.num_envs
    obs = jnp.asarray(rng.normal(size=(*shape, 3)), jnp.float32)
    flags = jnp.zeros(shape, bool)
    action = jnp.asarray(rng.integers(4, size=shape))
    return Transition(obs, action, jnp.ones(shape), flags, flags, obs)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("loss", ["squared", "huber"])
@pytest.mark.parametrize("discount", [None, 0.729])
def test_an_update_is_that_of_the_paper_written_out(double, loss, discount):
    """K15, K17, K18, K25l: two updates by hand, with weights, clipping, Adam and the target."""
    config = dataclasses.replace(CONFIG, double=double, loss=loss)
    batch = make_batch()
    if discount is not None:  # as n-step replay says
        batch = batch._replace(extras={"discount": jnp.full(N, discount)})
    probability = jnp.array([0.3, 0.1, 0.2, 0.1, 0.2, 0.1])
    sample = Sample(batch, jnp.arange(N), probability, jnp.float32(0.05))
    agent = dqn(config, SPEC, replay=scripted(sample))
    network = action_values.q_network(SPEC, (5,), "relu")
    state = agent.init(jax.random.key(0))
    state = state._replace(target_params=jax.tree.map(lambda x: 1.3 * x, state.params))
    params, target, moments = state.params, state.target_params, None
    gamma = 0.9 if discount is None else discount
    adam, norms = optax.adam(config.learning_rate), []
    for update in range(2):
        beyond, chooser = (
            network.apply(target, batch.next_obs),
            network.apply(params, batch.next_obs),
        )
        best = np.argmax(chooser if double else beyond, axis=1)
        goal = np.asarray(batch.reward) + gamma * np.where(
            batch.terminated, 0.0, np.asarray(beyond)[np.arange(N), best]
        )
        beta = 0.4 + 0.6 * 6 * (update + 1) / 60
        weight = (np.asarray(probability) / 0.05) ** -beta

        def plain(params, goal=goal, weight=weight):
            q = network.apply(params, batch.obs)[jnp.arange(N), batch.action]
            error = goal - q
            each = 0.5 * error**2
            if loss == "huber":
                each = jnp.where(jnp.abs(error) < 1, each, jnp.abs(error) - 0.5)
            return (weight * each).mean(), error

        (_, error), grads = jax.value_and_grad(plain, has_aux=True)(params)
        norm = np.sqrt(sum(float(jnp.square(x).sum()) for x in jax.tree.leaves(grads)))
        norms.append(norm)
        grads = jax.tree.map(lambda x, norm=norm: x * min(1.0, 0.3 / norm), grads)
        moments = adam.init(params) if moments is None else moments
        steps, moments = adam.update(grads, moments)
        params = optax.apply_updates(params, steps)
        target = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, target, params)
        state, metrics = jax.jit(agent.update)(state, rollout_of(config), jax.random.key(update))
        np.testing.assert_allclose(state.replay[0], error, rtol=1e-4, atol=1e-5)
    assert max(norms) > 0.3  # the clipping of gradients is at work
    for got, expected in ((state.params, params), (state.target_params, target)):
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
    assert metrics["losses/td_loss"].weight == 1.0


def counting(config, num_updates):
    """The states of an agent on the walk after each of `num_updates` updates."""
    env = wrappers.batched(walk(), config.num_envs)
    learner = make_learner(dqn(config, env.spec), env, config.num_steps)
    state = jax.jit(learner.init)(jax.random.key(0))

    @jax.jit
    def go(state):
        def step(state, _):
            state, metrics = learner.step(state)
            return state, (state.agent._replace(replay=()), metrics["losses/td_loss"].weight)

        return jax.lax.scan(step, state, length=num_updates)[1]

    states, weights = go(state)
    return state.agent, states, np.asarray(weights)


def at(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def test_nothing_is_learned_before_learning_starts():
    """K23: and no metric speaks of an update that did not happen."""
    config = dataclasses.replace(CONFIG, learning_starts=20, train_frequency=4)
    begin, states, weights = counting(config, 6)
    np.testing.assert_array_equal(weights, [0, 0, 0, 2, 1, 2])  # at 20, 24; 28; 32, 36
    for i in range(6):
        same = bits(at(states.params, i)) == bits(begin.params)
        assert same == (i < 3)
    np.testing.assert_array_equal(states.opt_state[1][0].count, np.cumsum(weights))
    np.testing.assert_array_equal(states.env_steps.value, 6 * np.arange(1, 7))


def test_the_target_is_a_copy_at_exact_counts():
    """K19: every 4 environment steps, with one environment and a gradient step for each."""
    config = dataclasses.replace(
        CONFIG, num_envs=1, num_steps=1, batch_size=1, learning_starts=1, train_frequency=1,
        target_update_interval=4, tau=1.0,
    )  # fmt: skip
    begin, states, weights = counting(config, 9)
    np.testing.assert_array_equal(weights, 1)
    for done in range(1, 10):
        copied = done // 4 * 4
        expected = at(states.params, copied - 1) if copied else begin.params
        assert bits(at(states.target_params, done - 1)) == bits(expected), done
        assert bits(at(states.params, done - 1)) != bits(expected) or done == copied


def test_it_explores_by_the_schedule_and_plays_greedily():
    """K14e, K21: the share of the best action over the run; `greedy` takes no other."""
    config = dataclasses.replace(
        CONFIG, total_timesteps=2000, eps_start=1.0, eps_end=0.1, exploration_fraction=0.5
    )
    num_envs = 8000
    agent = dqn(config, SPEC._replace(num_envs=num_envs))
    state = agent.init(jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (num_envs, 3))
    best = agent.greedy(state, obs, jax.random.key(2))
    values = action_values.q_network(SPEC, (5,), "relu").apply(state.params, obs)
    np.testing.assert_array_equal(best, values.argmax(axis=-1))
    act = jax.jit(agent.act)
    for steps, epsilon in ((0, 1.0), (500, 0.55), (1000, 0.1), (3000, 0.1)):
        now = state._replace(env_steps=Shared(jnp.int32(steps)))
        action, _ = act(now, obs, jax.random.key(steps))
        expected = 1 - epsilon + epsilon / 4
        spread = np.sqrt(expected * (1 - expected) / num_envs)
        np.testing.assert_allclose((action == best).mean(), expected, atol=4 * spread + 1e-6)


COMBINATIONS = list(itertools.product([False, True], [False, True], [False, True], [1, 3]))


@pytest.mark.parametrize(("double", "dueling", "prioritized", "n_step"), COMBINATIONS)
def test_every_combination_trains(double, dueling, prioritized, n_step):
    config = dataclasses.replace(
        CONFIG, double=double, dueling=dueling, prioritized=prioritized, n_step=n_step,
        learning_starts=12,
    )  # fmt: skip
    agent, weights = dqn(config, SPEC), []
    begin = state = agent.init(jax.random.key(0))
    with jax.disable_jit():  # sixteen programs would take longer to compile than to walk through
        for i in range(3):
            state, metrics = agent.update(state, rollout_of(config, i), jax.random.key(i))
            weights.append(float(metrics["losses/td_loss"].weight))
    assert weights == [0, 1, 1]
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(begin.params), jax.tree.leaves(state.params),
        strict=True,
    ):  # fmt: skip
        assert np.isfinite(new).all() and not np.array_equal(old, new), path
    assert any("advantage" in name for name in begin.params["params"]) == dueling


def test_options_and_pieces_name_the_same():
    options = dataclasses.replace(CONFIG, double=True, prioritized=True)
    pieces = {
        "bootstrap": td.select_double_action,
        "replay": prioritized(40, N, 0.6),
        "loss": td.squared,
    }

    def trained(agent):
        env = wrappers.batched(walk(), CONFIG.num_envs)
        learner = make_learner(agent, env, CONFIG.num_steps)
        return jax.jit(
            lambda key: jax.lax.scan(lambda s, _: learner.step(s), learner.init(key), length=4)[0]
        )(jax.random.key(0))

    spec = wrappers.batched(walk(), 2).spec
    assert bits(trained(dqn(options, spec))) == bits(trained(dqn(CONFIG, spec, **pieces)))


# many runs in one program

CAPACITY, WIDTH = 977, 3


def plan_of_three():
    options = configs.to_mapping(CONFIG) | {
        "buffer_size": CAPACITY, "total_timesteps": 600, "learning_starts": 12, "double": True,
        "prioritized": True, "n_step": 2, "learning_rate": [0.001, 0.01, 0.03],
    }  # fmt: skip
    return make_plan("dqn", walk(), **options)


def equations(jaxpr):
    """Every equation of a program, those of its inner programs as well."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def test_no_cond_and_no_copy_of_the_ring_under_vmap():
    """In a fresh program, and in one that goes on with the saved states of many runs."""
    plan = plan_of_three()
    make, starts = plan.make_learner(), plan.starts()
    begin = runs.over_runs(lambda start: runs.start_one(make, plan.config, start), WIDTH)
    work = jax.eval_shape(begin, starts)

    def resumed(work):
        def one(work):
            return runs.advance_one(make, plan.config, work, jnp.int32(5), jnp.bool_(False))

        return runs.over_runs(one, WIDTH)(work)

    def fresh(starts):
        def one(start):
            work = runs.start_one(make, plan.config, start)
            return runs.advance_one(make, plan.config, work, jnp.int32(5), jnp.bool_(False))

        return runs.over_runs(one, WIDTH)(starts)

    for program, argument in ((fresh, starts), (resumed, work)):
        jaxpr = jax.make_jaxpr(program)(argument).jaxpr
        sizes = [
            (equation.primitive.name, max(np.size(x.aval) for x in equation.outvars))
            for equation in equations(jaxpr)
        ]
        names = [name for name, _ in sizes]
        assert "cond" not in names and "while" in names and "scatter" in names
        assert max(size for _, size in sizes) >= WIDTH * CAPACITY  # the ring is seen
        selects = [size for name, size in sizes if name == "select_n"]
        assert selects and max(selects) < CAPACITY


def test_many_runs_resume_bit_for_bit(tmp_path):
    """Rings, trees, counters and all, through a checkpoint file."""
    plan = plan_of_three()

    def fresh():
        spread = parallel.spread(plan.num_runs, 1)
        make, starts = plan.make_learner(), plan.starts()
        return runs.Runs(make, plan.config, starts, spread, cache_key="test_dqn")

    whole = fresh()
    whole.advance(9)
    first = fresh()
    first.advance(4)
    path = checkpoint.save(tmp_path, first.snapshot(), {}, step=4)
    like = runs.template(plan.make_learner(), plan.config, plan.starts())
    second = fresh()
    second.put_back(checkpoint.load(path, like)[0])
    second.advance(5)
    assert bits(second.snapshot()) == bits(whole.snapshot())


SMALL_RUN = {
    "num_envs": 2, "total_timesteps": 400, "buffer_size": 200, "batch_size": 8,
    "learning_starts": 32, "hidden_sizes": (4,), "progress": False, "eval_episodes": 0,
    "env_params": {"max_episode_steps": 20},
}  # fmt: skip


def test_train_and_resume_from_the_top(tmp_path):
    options = {"double": True, "dueling": True, "prioritized": True, "n_step": 3} | SMALL_RUN
    whole = rljax.train("dqn", "CartPole-v1", num_seeds=2, **options)

    again = rljax.train(
        "dqn", "CartPole-v1", num_seeds=2, run_dir=tmp_path, save_seconds=0.0, **options
    )
    assert bits(again.state) == bits(whole.state)
    for path in checkpoint.checkpoints(tmp_path / "checkpoint")[:1]:
        path.unlink()  # as if it had been killed before the last one
    resumed = rljax.resume(tmp_path, progress=False, eval_episodes=0)
    assert bits(resumed.state) == bits(whole.state)


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("Pendulum-v1", {}, "needs discrete actions"),
        ("CartPole-v1", {"buffer_size": 10**12}, "`buffer_size` is 1,000,000,000,000"),
        ("CartPole-v1", {"buffer_size": 32}, "`buffer_size` is 32"),
        ("CartPole-v1", {"learning_starts": 60_000}, "`learning_starts` is 60000"),
        ("CartPole-v1", {"total_timesteps": 500}, "`learning_starts` is 1000"),
        ("CartPole-v1", {"loss": "hubert"}, "did you mean 'huber'"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_compiles(env, options, message):
    with pytest.raises(ValueError) as error:
        rljax.train("dqn", env, progress=False, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_maker_itself_wants_discrete_actions():
    with pytest.raises(ValueError, match="dqn needs discrete actions"):
        dqn(CONFIG, SPEC._replace(num_actions=0, action_shape=(2,)))


@pytest.mark.parametrize(
    "spec",
    [
        EnvSpec(obs_shape=(5, 5, 2), num_actions=3, num_envs=2),
        EnvSpec(obs_shape=(), num_states=7, num_actions=3, num_envs=2),
    ],
)
def test_images_and_numbered_states(spec):
    agent = dqn(CONFIG, spec)
    state = jax.jit(agent.init)(jax.random.key(0))
    numbered = spec.num_states > 0
    obs = jnp.ones((2, *spec.obs_shape), jnp.int32 if numbered else jnp.uint8)
    action, _ = agent.act(state, obs, jax.random.key(1))
    assert action.shape == (2,) and action.dtype == jnp.int32
    flags = jnp.zeros((3, 2), bool)
    seen = jnp.stack([obs] * 3)
    played = Transition(seen, jnp.zeros((3, 2), jnp.int32), jnp.ones((3, 2)), flags, flags, seen)
    after, metrics = jax.jit(agent.update)(state, played, jax.random.key(2))
    assert metrics["losses/td_loss"].weight == 1
    assert bits(after.params) != bits(state.params)


@pytest.mark.slow
def test_it_learns_cartpole():
    """Sixteen seeds, all of them; no seed is picked."""
    run = rljax.train("dqn", "CartPole-v1", num_seeds=16, total_timesteps=100_000, progress=False)
    returns = run.evaluation["returns"].mean(axis=-1)
    assert (returns >= 450).sum() >= 12, returns


def test_replay_keeps_observations_as_they_were_and_normalises_what_it_draws():
    """Those stored early are seen with today's statistics, not with those of their day."""
    agent = dqn(dataclasses.replace(CONFIG, normalize_obs=True), SPEC)
    state, update = agent.init(jax.random.key(0)), jax.jit(agent.update)
    shown = []
    for time in range(4):
        trajectory = rollout_of(CONFIG, seed=time)
        trajectory = trajectory._replace(obs=100.0 + 5.0 * trajectory.obs)
        shown.append(np.asarray(trajectory.obs).reshape(-1, 3))
        state, _ = update(state, trajectory, jax.random.key(time))
    seen = np.concatenate(shown)
    held = ring.contents(state.replay).obs[: len(seen)]
    np.testing.assert_array_equal(held, seen)
    apart = np.clip((seen[:2] - seen.mean(0)) / seen.std(0), -10, 10)
    network = action_values.q_network(SPEC, (5,), "relu")
    expected = network.apply(state.params, jnp.asarray(apart)).max(axis=-1)
    _, extras = agent.act(state, jnp.asarray(seen[:2]), jax.random.key(0))
    np.testing.assert_allclose(extras["value"], expected, rtol=1e-3, atol=1e-4)


def test_observations_of_bytes_stay_bytes():
    image = EnvSpec(obs_shape=(4, 4, 2), num_actions=4, num_envs=2, obs_dtype="uint8")
    agent = dqn(CONFIG, image)
    state = agent.init(jax.random.key(0))
    obs = jnp.arange(3 * 2 * 32, dtype=jnp.uint8).reshape(3, 2, 4, 4, 2)
    trajectory = rollout_of(CONFIG)._replace(obs=obs, next_obs=obs + 1)
    state, _ = jax.jit(agent.update)(state, trajectory, jax.random.key(0))
    assert sum(x.nbytes for x in state.replay.words.values()) == 40 * (2 * 32 + 2 + 8)
    held = ring.contents(state.replay)
    assert held.obs.dtype == jnp.uint8
    np.testing.assert_array_equal(held.next_obs[:6], (obs + 1).reshape(6, 4, 4, 2))
    floats = trajectory._replace(obs=obs / 255.0)
    with pytest.raises(ValueError, match='float32.* uint8: set `obs_dtype` .* to "float32"'):
        agent.update(state, floats, jax.random.key(0))
