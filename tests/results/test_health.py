"""Signs of failed learning in the curves of a run."""

import dataclasses

import numpy as np
import pytest

import rljax
from rljax.results.result import Result

POINTS = 40
STEPS = 1_000 * np.arange(1, POINTS + 1)
A2C = {"ent_coef": 0.0, "learning_rate": 3e-3, "normalize_reward": False, "normalize_obs": True}
DQN = {"exploration_fraction": 0.2, "learning_rate": 1e-3, "anneal_lr": False, "gamma": 0.99}
LEARNED = np.concatenate([np.linspace(-500, -80, 20), np.full(20, -80.0)])
NOISE = np.random.default_rng(0).normal(0, 5, POINTS)


def made(returns, config=A2C, sweep=None, lengths=None, **metrics):
    """Returns a result with the given curves, `[*sweep, seeds, P]`; broadcast."""
    returns = np.atleast_2d(returns)
    if not metrics:
        metrics = {"losses/entropy": np.linspace(1.0, 0.02, POINTS)}
    lengths = -returns if lengths is None else lengths
    metrics |= {"charts/episodic_return": returns, "charts/episodic_length": lengths}
    return Result(
        "agent", "Task-v0", config, sweep or {}, returns.shape[-2], 0, STEPS,
        {name: np.broadcast_to(x, returns.shape) for name, x in metrics.items()},
    )  # fmt: skip


def texts(*args, **kwargs):
    return [sign["text"] for sign in made(*args, **kwargs).health()]


@pytest.mark.parametrize(
    "returns",
    [
        LEARNED, LEARNED + NOISE, np.full(POINTS, -80.0) + NOISE, 50 * NOISE,
        np.concatenate([[-500.0], np.full(POINTS - 1, -80.0)]),  # solved at the second report
        np.where(np.arange(POINTS) == 30, -300.0, LEARNED),  # one bad report
        np.concatenate([np.full(35, np.nan), np.full(5, -500.0)]),  # too few reports to judge
    ],
)  # fmt: skip
def test_healthy_runs_have_no_sign(returns):
    assert texts(returns) == texts(returns, DQN, **{"losses/td_loss": 1.0}) == []


def test_episodes_that_are_all_equal():
    assert texts(np.full(POINTS, -200.0)) == [
        "every episode had the return -200 and the same length, so there was nothing to learn "
        "from: set normalize_reward=True or add an exploration bonus (docs/exploration.md)."
    ]
    # the same return in fewer steps is learning
    assert texts(np.full(POINTS, 1.0), lengths=np.linspace(100, 5, POINTS)) == []


def test_a_collapsed_policy_is_named_with_its_entropy():
    returns = np.where(np.arange(POINTS) < 10, -300.0 + NOISE, -500.0)
    assert texts(returns) == [
        "the return is -500, its lowest, since step 11,000, and the entropy fell from 1 to 0.02: "
        "set normalize_reward=True or raise `ent_coef`."
    ]
    assert texts(np.where(np.arange(POINTS) < 10, -300.0 + NOISE, -80.0)) == []  # its highest


def test_a_run_that_lost_what_it_had_learned():
    returns = np.concatenate([np.linspace(20, 500, 25), np.linspace(500, 100, 15)]) + NOISE
    (text,) = texts(returns, DQN, **{"losses/td_loss": 1.0})
    assert text.startswith("the return fell from 48") or text.startswith("the return fell from 49")
    assert text.endswith(
        "by the end: set anneal_lr=True or keep the best policy with `eval_interval`."
    )


def test_a_final_policy_that_evaluates_well_has_lost_nothing():
    """The returns of training fall with exploratory actions, those of greedy episodes do not."""
    returns = np.concatenate([np.linspace(20, 500, 25), np.linspace(500, 100, 15)]) + NOISE
    result = made(np.stack([returns, returns]), DQN, **{"losses/td_loss": 1.0})
    evaluation = {"returns": np.array([[490.0, 500.0], [90.0, 120.0]])}
    (sign,) = dataclasses.replace(result, evaluation=evaluation).health()
    assert sign["seed"] == 1


def test_action_values_outside_the_range_of_returns():
    largest = np.geomspace(1, 1e6, POINTS)
    metrics = {"losses/q_value_max": largest, "charts/reward": 1.0, "losses/td_loss": 1.0}
    (text,) = texts(np.linspace(20, 200, POINTS), DQN, **metrics)
    assert text == ("action values reached 1e+06, but returns only 200: lower `learning_rate`.")
    metrics["losses/q_value_max"] = np.linspace(1, 110, POINTS)
    assert texts(np.linspace(20, 200, POINTS), DQN, **metrics) == []


@pytest.mark.parametrize(
    ("config", "name", "healthy", "dead"),
    [(DQN, "losses/value_std", 0.1, 0.0), (A2C, "losses/explained_variance", -0.1, 1e-7)],
)
def test_a_network_that_has_become_constant(config, name, healthy, dead):
    returns = np.where(np.arange(POINTS) < 20, 100.0, 20.0) + NOISE / 10
    metrics = {name: np.where(np.arange(POINTS) < 20, healthy, dead), "losses/td_loss": 1.0}
    (text,) = texts(returns, config, **metrics)
    assert text.startswith(
        "the network has given the same value for all observations since step 21,000, as if all "
        "units of a layer were dead: "
    )
    assert "lower `learning_rate`" in text
    metrics[name] = np.full(POINTS, healthy)
    assert texts(returns, config, **metrics) == []
    metrics[name] = np.zeros(POINTS)  # a task with one observation, which was learned
    assert texts(LEARNED + NOISE, config, **metrics) == []


def test_the_summary_names_seeds_with_the_same_sign_in_one_line():
    returns = np.stack([np.full((3, POINTS), -200.0), np.tile(LEARNED, (3, 1))])
    result = made(returns, sweep={"ent_coef": [0.0, 0.1]})
    assert [(s["run"], s["setting"], s["seed"]) for s in result.health()] == [
        (i, {"ent_coef": 0.0}, i) for i in range(3)
    ]
    (line,) = [line for line in result.summary().splitlines() if "every episode" in line]
    assert line.strip().startswith("seeds 0, 1, 2: ent_coef=0: every episode had the return -200")


def test_runs_without_a_network_or_that_diverged_are_not_judged():
    flat = np.full(POINTS, -200.0)
    assert texts(flat, **{"charts/reward": -1.0}) == []
    result = made(flat)
    object.__setattr__(result, "diverged", ({"run": 0},))
    assert result.health() == []


def test_signs_of_a_real_run():
    """The car never reaches the goal by random actions, and a working agent shows no sign."""
    options = {"num_seeds": 2, "total_timesteps": 20_000, "progress": False, "eval_episodes": 0}
    run = rljax.train("a2c", "MountainCar-v0", normalize_obs=False, num_reports=20, **options)
    assert [sign["seed"] for sign in run.health()] == [0, 1]
    assert "  seeds 0, 1: every episode had the return -200" in run.summary()
    assert rljax.train("a2c", "CartPole-v1", num_reports=20, **options).health() == []


def test_without_an_option_that_helps_only_the_sign_is_named():
    returns = np.where(np.arange(POINTS) < 10, -300.0 + NOISE, -500.0)
    (text,) = texts(returns, {"gamma": 0.99}, **{"losses/critic_loss": 1.0})
    assert text == "the return is -500, its lowest, since step 11,000."
