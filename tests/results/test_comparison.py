"""The comparison of algorithms: its oracles are scipy and numpy."""

import dataclasses

import numpy as np
import pytest
from result_helpers import POINTS, SWEEP, make, with_returns
from scipy import stats

from rljax.results.comparison import Estimate, Improvement, compare

BOUNDS = {
    "low": {"CartPole-v1": 0, "Acrobot-v1": -500},
    "high": {"CartPole-v1": 500, "Acrobot-v1": 0},
}


def improvement(*runs, **bounds):
    (pair,) = compare(*runs, **bounds).improvements
    return pair


def four_runs():
    """Returns two algorithms on two environments, with different numbers of seeds."""
    return [
        make(level=450.0, num_seeds=6), make("dqn", level=300.0),
        make("ppo", "Acrobot-v1", level=-100.0),
        make("dqn", "Acrobot-v1", level=-90.0, num_seeds=5),
    ]  # fmt: skip


def test_probability_of_improvement_is_the_mann_whitney_statistic(tmp_path):
    better, worse = make(level=450.0, num_seeds=6), make("dqn")
    pair = improvement(better, worse.save(tmp_path))
    assert pair == Improvement("ppo", "dqn", 1.0, 1.0, 1.0)
    assert str(pair) == "P(ppo > dqn) = 1.00 [1.00, 1.00]"
    assert improvement(worse, better).probability == 0.0
    x, y = make(gamma=0.9, seed=1, num_seeds=9), make(gamma=0.99, seed=2, num_seeds=7)
    pair = improvement(x, y)
    u = stats.mannwhitneyu(x.scores(True)[0], y.scores(True)[0]).statistic
    assert (pair.x, pair.y) == ("ppo gamma=0.9", "ppo gamma=0.99")
    np.testing.assert_allclose(pair.probability, u / 63)
    assert pair.low < pair.probability < pair.high


def test_probability_is_averaged_over_environments():
    assert improvement(*four_runs()).probability == 0.5  # better on one, worse on the other
    x, y = four_runs()[::2], four_runs()[1::2]
    assert improvement(x, y) == improvement(*four_runs())  # lists, as well


def test_returns_of_training_are_compared_if_a_run_was_not_evaluated():
    runs = [make(level=450.0), dataclasses.replace(make("dqn"), evaluation=None)]
    assert improvement(*runs).probability == 1.0
    runs[0] = with_returns(runs[0], np.full((4, POINTS), -1.0))
    assert improvement(*runs).probability == 0.0
    assert compare(*runs).score_name == "return"


def test_normalized_scores_are_aggregated_over_environments():
    runs = four_runs()
    comparison = compare(runs, **BOUNDS)
    ppo = np.concatenate([runs[0].scores(True)[0] / 500, (runs[2].scores(True)[0] + 500) / 500])
    estimates = comparison.aggregates["ppo"]
    assert list(estimates) == ["IQM", "median", "mean", "optimality gap"]
    np.testing.assert_allclose(estimates["IQM"].value, stats.trim_mean(ppo, 0.25))
    means = [ppo[:6].mean(), ppo[6:].mean()]
    np.testing.assert_allclose(estimates["mean"].value, np.mean(means))
    np.testing.assert_allclose(estimates["median"].value, np.median(means))
    np.testing.assert_allclose(estimates["optimality gap"].value, np.mean(1 - np.minimum(ppo, 1)))
    for value, low, high in estimates.values():
        assert low < value < high
    assert comparison.normalized["dqn"].shape == (5, 2)
    assert np.isnan(comparison.normalized["dqn"]).sum() == 1  # 4 seeds on one environment


def test_raw_returns_of_several_environments_are_not_aggregated():
    assert compare(four_runs()).aggregates == {}
    one = compare(make(), make("dqn")).aggregates["dqn"]
    assert list(one) == ["IQM", "mean"]
    np.testing.assert_allclose(one["IQM"].value, stats.trim_mean(make("dqn").scores(True)[0], 0.25))
    assert isinstance(one["mean"], Estimate)


def test_the_tables_of_a_comparison():
    comparison = compare(four_runs(), **BOUNDS)
    text = str(comparison).splitlines()
    assert repr(comparison) == str(comparison)
    assert text[0] == "evaluation return: interquartile mean [95 % interval]"
    assert text[1].split() == ["CartPole-v1", "Acrobot-v1"]
    assert text[2].startswith("  ppo  450") and text[3].startswith("  dqn  300")
    assert text[2].index("-99.97 [") == text[1].index("Acrobot-v1")
    assert text[5] == "normalized evaluation return over CartPole-v1, Acrobot-v1"
    assert text[7].startswith("  ppo  0.8")
    assert text[-2:] == [
        "probability of improvement over CartPole-v1, Acrobot-v1",
        "  P(ppo > dqn) = 0.50 [0.50, 0.50]",
    ]


def test_environments_that_an_algorithm_lacks_are_left_out_of_the_statistics():
    comparison = compare(four_runs()[:3])
    assert comparison.env_ids == ("CartPole-v1",)
    assert comparison.improvements[0].probability == 1.0
    assert str(comparison).splitlines()[3].endswith("  -")
    with pytest.raises(
        ValueError, match="common to all .*: ppo ran on CartPole-v1; dqn ran on Acr"
    ):
        compare(four_runs()[::3])


def test_settings_of_a_sweep_are_algorithms():
    pairs = compare(make(sweep=SWEEP)).improvements
    assert [pair.x for pair in pairs] == [
        f"ppo learning_rate={x}" for x in ("0.0001", "0.0001", "0.0003")
    ]


def test_names_of_a_mapping_are_those_of_the_algorithms():
    pair = improvement({"fast": make(level=450.0), "slow": make(level=400.0)})
    assert (pair.x, pair.y, pair.probability) == ("fast", "slow", 1.0)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"low": 0}, "`high` is missing: normalized scores need both"),
        ({"high": 0}, "`low` is missing"),
        ({"low": {"CartPole-v1": 0}, "high": 1}, "`low` has no value for Acrobot-v1: add one"),
        ({"low": 500, "high": 500}, "`low` is 500 and `high` is 500 for CartPole-v1: give low < h"),
        ({"low": 0, "high": float("nan")}, "`high` is nan"),
    ],
)
def test_wrong_bounds_are_refused(bounds, message):
    with pytest.raises(ValueError, match=message):
        compare(four_runs(), **bounds)


def test_a_comparison_needs_results():
    with pytest.raises(ValueError, match="`results` is empty"):
        compare()
