"""The adapter of pgx, compared with pgx's own `init` and `step`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.suite_helpers import learned_value

pgx = pytest.importorskip("pgx")

import rljax  # noqa: E402
from rljax import envs  # noqa: E402
from rljax.envs import pgx as adapter  # noqa: E402

GAMES = [f"pgx/{name}" for name in pgx.available_envs() if name.startswith(adapter.ONE_PLAYER)]


@pytest.fixture(autouse=True)
def _rank_promotion(quick_compiles):
    with jax.numpy_rank_promotion("allow"):  # in pgx
        yield


def test_games_of_one_player_are_listed():
    assert sorted(envs.environment_ids("pgx")) == sorted(GAMES)
    assert len(GAMES) == 6


def test_games_of_several_players_are_refused():
    for name in ("chess", "tic_tac_toe", "kuhn_poker"):
        with pytest.raises(ValueError, match=f"^pgx/{name} is a game of several players, .* 2048"):
            envs.make(f"pgx/{name}")
    with pytest.raises(ValueError, match="pgx/tic_tac_toe is a game of several players"):
        envs.make(pgx.make("tic_tac_toe"))


@pytest.mark.slow
@pytest.mark.parametrize("name", pgx.available_envs())
def test_the_number_of_players_follows_from_the_name(name):
    assert (pgx.make(name).num_players == 1) == name.startswith(adapter.ONE_PLAYER)


@pytest.mark.parametrize("env_id", GAMES)
def test_games_pass_the_check(env_id):
    envs.validate(envs.make(env_id))


def random_legal(mask, key):
    return jnp.where(mask, jax.random.uniform(key, mask.shape), -1).argmax()


@pytest.mark.parametrize("env_id", GAMES)
def test_steps_are_those_of_pgx(env_id):
    env, game = envs.make(env_id), pgx.make(env_id.removeprefix("pgx/"))

    @jax.jit
    def play(key):
        state, obs = env.reset(key)
        wanted = game.init(jax.random.split(jax.random.split(key)[0])[0])  # as `auto_reset` splits

        def one_step(carry, key):
            state, wanted = carry
            action_key, key = jax.random.split(key)
            action = random_legal(wanted.legal_action_mask, action_key)
            state, step = env.step(state, action, key)
            wanted = game.step(wanted, action, key)
            return (state, wanted), (step, wanted)

        keys = jax.random.split(jax.random.key(1), 300)
        return obs, wanted, jax.lax.scan(one_step, (state, wanted), keys)[1]

    obs, first, (step, wanted) = jax.device_get(play(jax.random.key(0)))
    image = (lambda obs: obs["observation"]) if env_id == "pgx/2048" else (lambda obs: obs)
    np.testing.assert_array_equal(image(obs), first.observation)
    end = int(wanted.terminated.argmax()) + 1 if wanted.terminated.any() else 300
    assert end > 10
    for name in ("terminated", "truncated"):
        np.testing.assert_array_equal(getattr(step, name)[:end], getattr(wanted, name)[:end])
    np.testing.assert_array_equal(step.reward[:end], wanted.rewards[:end, 0])
    np.testing.assert_array_equal(image(step.next_obs)[:end], wanted.observation[:end])
    if env_id == "pgx/2048":
        assert wanted.terminated.any() and wanted.rewards.max() >= 16
        np.testing.assert_array_equal(
            step.next_obs["action_mask"][:end], wanted.legal_action_mask[:end]
        )


def play_zeros(env, num_steps):
    """Returns the steps of an episode of actions 0."""

    @jax.jit
    def run(key):
        def one_step(state, key):
            return env.step(state, jnp.int32(0), key)

        keys = jax.random.split(jax.random.key(1), num_steps)
        return jax.lax.scan(one_step, env.reset(key)[0], keys)[1]

    return jax.device_get(run(jax.random.key(0)))


def test_freeway_is_truncated_where_pgx_terminates_it():
    env = envs.make("pgx/minatar-freeway")
    assert env.spec.max_episode_steps == 2500
    step = play_zeros(env, 5100)
    assert not step.terminated.any()
    assert np.flatnonzero(step.truncated).tolist() == [2499, 4999]
    assert np.flatnonzero(play_zeros(envs.make("pgx/minatar-freeway", max_episode_steps=3000), 3001)
                          .truncated).tolist() == [2999]  # fmt: skip


def test_a_time_limit_truncates():
    env = envs.make("pgx/minatar-asterix", max_episode_steps=7)
    step = play_zeros(env, 15)
    assert env.spec.max_episode_steps == 7
    assert np.flatnonzero(step.truncated).tolist() == [6, 13] and not step.terminated.any()


def test_a_lost_ball_terminates():
    step = play_zeros(envs.make("pgx/minatar-breakout"), 40)
    assert step.terminated.any() and not step.truncated.any()


def test_parameters_of_the_class():
    env = envs.make("pgx/minatar-breakout", use_minimal_action_set=False, sticky_action_prob="0")
    assert env.spec.num_actions == 6 and env.spec.env_id == "pgx/minatar-breakout"
    assert envs.make("pgx/minatar-breakout").spec.num_actions == 3
    envs.validate(env)
    with pytest.raises(ValueError, match="has no option `sticky`: did you mean `sticky_action_p"):
        envs.make("pgx/minatar-breakout", sticky=0.1)
    with pytest.raises(ValueError, match="2048 has no option `sticky_action_prob`: use one of max"):
        envs.make("pgx/2048", sticky_action_prob=0.1)
    with pytest.raises(ValueError, match="minatar-asterix has no option `size`"):
        envs.make(pgx.make("minatar-asterix"), size=3)


def test_objects_are_made_as_their_ids():
    made = envs.make(pgx.make("minatar-asterix"), max_episode_steps=30)
    wanted = envs.make("pgx/minatar-asterix", max_episode_steps=30).spec
    assert made.spec == wanted._replace(env_id="minatar-asterix")


@pytest.mark.slow
def test_truncation_is_bootstrapped():
    assert learned_value("pgx/minatar-freeway") == pytest.approx(10, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "before", "after"), [("pgx/minatar-breakout", 2, 4), ("pgx/2048", 1_500, 2_000)]
)
def test_ppo_learns(env_id, before, after):
    result = rljax.train("ppo", env_id, total_timesteps=100_000, progress=False, eval_episodes=0)
    returns = result.returns.ravel()
    assert returns[0] < before and returns[-1] > after
