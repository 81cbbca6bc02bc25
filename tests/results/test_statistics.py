"""Statistics against scipy, the published formulas as loops, and outputs of rliable 1.2.0."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rljax.results import statistics

X = np.array([
    [0.64, 0.56, 0.79], [0.63, 0.44, 0.71], [0.99, 0.88, 0.39], [0.22, 0.41, 0.61],
    [-0.1, 0.53, 0.23], [0.38, 0.44, 0.51],
])  # fmt: skip
Y = np.array([
    [0.64, 0.56, 0.79], [0.91, 0.3, 0.61], [0.77, 0.53, 0.28], [0.22, 0.36, 0.57],
    [0.2, 0.44, 0.45],
])  # fmt: skip

# (statistic, rliable's value of X, rliable's 95 % interval from 50,000 resamples)
RLIABLE = [
    (statistics.iqm, 0.516, (0.413, 0.63)),
    (statistics.mean, 0.5144444444444445, (0.40111111111111114, 0.6277777777777778)),
    (statistics.median, 0.54, (0.42, 0.64)),
    (statistics.optimality_gap, 0.4855555555555555, (0.37222222222222223, 0.5988888888888888)),
]
STATISTICS = [row[0] for row in RLIABLE]
FROZEN_INTERVAL = (0.411975, 0.628)  # of the IQM of X, with the default seed


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(("statistic", "value", "interval"), RLIABLE)
def test_values_and_intervals_equal_those_of_rliable(statistic, value, interval):
    assert statistic(X) == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(
        statistics.stratified_bootstrap(X, statistic, 10_000), interval, atol=0.01
    )


def test_profile_and_probability_of_improvement_equal_those_of_rliable():
    profile = statistics.performance_profile(X, [0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(profile, np.array([17, 15, 10, 3, 0]) / 18)
    assert statistics.probability_of_improvement(X, Y) == pytest.approx(
        0.5333333333333333, abs=1e-12
    )
    interval = statistics.stratified_bootstrap(
        (X, Y), statistics.probability_of_improvement, 10_000
    )
    np.testing.assert_allclose(interval, (0.3333333333333333, 0.7333333333333333), atol=0.02)


@pytest.mark.parametrize("runs", range(1, 14))
@pytest.mark.parametrize("tasks", [1, 3])
def test_iqm_equals_the_trimmed_mean_of_scipy(runs, tasks):
    scores = normal(runs, tasks, seed=runs)
    expected = scipy_stats.trim_mean(scores, proportiontocut=0.25, axis=None)
    assert statistics.iqm(scores) == pytest.approx(expected, abs=1e-12)


def test_one_axis_is_one_task():
    scores = normal(7)
    for statistic in STATISTICS:
        assert statistic(scores) == statistic(scores[:, None])


def test_iqm_ignores_outliers_in_the_outer_quarters():
    assert statistics.iqm([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7e9, -9e9]) == 3.5
    assert statistics.iqm([1.0, 2.0, 3.0, np.inf]) == 2.5


@pytest.mark.parametrize("statistic", STATISTICS)
def test_leading_axes_are_a_batch(statistic):
    scores = normal(2, 5, 6, 3)
    batched = statistic(scores)
    assert batched.shape == (2, 5)
    for index in np.ndindex(2, 5):
        assert batched[index] == pytest.approx(statistic(scores[index]), abs=1e-12)


def test_optimality_gap_counts_higher_scores_as_the_threshold():
    assert statistics.optimality_gap([[0.5, 4.0], [0.0, 1.0]]) == pytest.approx(
        1 - (0.5 + 1 + 0 + 1) / 4
    )
    assert statistics.optimality_gap([3.0, 9.0], threshold=5.0) == 1.0


def test_performance_profile_is_strict_and_decreases():
    scores, thresholds = np.round(normal(9, 4), 1), np.linspace(-2, 2, 21)
    profile = statistics.performance_profile(scores, thresholds)
    by_hand = [sum(s > tau for s in scores.flat) / scores.size for tau in thresholds]
    np.testing.assert_allclose(profile, by_hand)
    assert (np.diff(profile) <= 0).all()
    assert statistics.performance_profile([1.0], [1.0]) == 0.0
    low, high = statistics.stratified_bootstrap(
        scores, lambda s: statistics.performance_profile(s, thresholds), 200
    )
    assert low.shape == (21,)
    assert ((low <= profile) & (profile <= high)).all()


def test_probability_of_improvement_is_mann_whitney():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 5, (8, 3)) + 0.0, rng.integers(0, 6, (5, 3)) + 0.0  # many ties
    expected = [
        scipy_stats.mannwhitneyu(x[:, task], y[:, task]).statistic / (8 * 5) for task in range(3)
    ]
    assert statistics.probability_of_improvement(x, y) == pytest.approx(np.mean(expected))
    assert statistics.probability_of_improvement(y, x) == pytest.approx(1 - np.mean(expected))
    assert statistics.probability_of_improvement(x, x) == 0.5
    batch = statistics.probability_of_improvement(np.stack([x, -x]), np.stack([y, -y]))
    np.testing.assert_allclose(batch, [np.mean(expected), 1 - np.mean(expected)])


@pytest.mark.parametrize("statistic", STATISTICS)
def test_runs_without_a_score_are_ignored(statistic):
    scores = normal(6, 3)
    gaps = np.concatenate([scores, np.full((2, 3), np.nan)])[[6, 0, 3, 1, 7, 2, 5, 4]]
    assert statistic(gaps) == pytest.approx(statistic(scores), abs=1e-12)
    scores[:, 1] = np.nan  # a task without any score
    assert np.isnan(statistic(scores))
    assert np.isnan(statistics.stratified_bootstrap(scores, statistic, 50)).all()


def test_runs_without_a_score_in_profiles_and_comparisons():
    gaps = np.append(X, [[np.nan, 0.1, np.nan]], axis=0)
    counted = [s for s in gaps.flat if not np.isnan(s)]
    profile = statistics.performance_profile(gaps, 0.5)
    assert profile == pytest.approx(np.mean([s > 0.5 for s in counted]))
    x, y = np.array([1.0, np.nan, 3.0]), np.array([2.0, np.nan])
    assert statistics.probability_of_improvement(x, y) == 0.5
    assert np.isnan(statistics.probability_of_improvement(x, [np.nan]))


def test_a_run_without_a_score_is_never_drawn():
    low, high = statistics.stratified_bootstrap([7.0, np.nan, np.nan], num_resamples=200)
    assert low == high == 7.0


def test_tasks_are_strata():
    scores = np.tile([[0.0, 10.0, 20.0]], (5, 1))  # all runs of a task are equal
    assert statistics.stratified_bootstrap(scores, statistics.mean, 200) == (10.0, 10.0)


def test_the_same_seed_gives_the_same_interval():
    scores = normal(10, 2)
    assert statistics.stratified_bootstrap(scores) == statistics.stratified_bootstrap(scores)
    assert statistics.stratified_bootstrap(scores) != statistics.stratified_bootstrap(
        scores, seed=1
    )
    np.testing.assert_allclose(statistics.stratified_bootstrap(X), FROZEN_INTERVAL, atol=1e-12)
    for one, other in zip(statistics.iqm_curve(X), statistics.iqm_curve(X), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_coverage_of_the_interval_is_its_confidence():
    data, hits = normal(200, 10, 6), 0
    for scores in data:  # 60 scores in total
        low, high = statistics.stratified_bootstrap(scores, num_resamples=300)
        hits += low <= 0 <= high
    assert 0.89 <= hits / 200 <= 0.98


@pytest.mark.parametrize(("confidence", "allowed"), [(0.95, (0.915, 0.965)), (0.5, (0.44, 0.55))])
def test_the_coverage_of_the_interval_of_a_curve_is_its_confidence(confidence, allowed):
    # each point is a separate data set; with few runs the percentile bootstrap is too narrow
    _, low, high = statistics.iqm_curve(normal(40, 1500), confidence=confidence)
    coverage = np.mean((low <= 0) & (high >= 0))
    assert allowed[0] <= coverage <= allowed[1]


def test_the_interval_of_a_curve_equals_that_of_resampled_runs():
    scores = normal(9, 4)
    middle, low, high = statistics.iqm_curve(scores, num_resamples=20_000)
    rng = np.random.default_rng(5)
    for point in range(4):
        values = scores[rng.integers(9, size=(20_000, 9)), point]
        resampled = scipy_stats.trim_mean(values, 0.25, axis=1)
        assert middle[point] == pytest.approx(scipy_stats.trim_mean(scores[:, point], 0.25))
        assert low[point] == pytest.approx(np.quantile(resampled, 0.025), abs=0.04)
        assert high[point] == pytest.approx(np.quantile(resampled, 0.975), abs=0.04)


def test_missing_values_in_curves_are_ignored():
    scores = normal(6, 4)
    scores[:, 1] = np.nan
    scores[1:, 2] = np.nan
    scores[:2, 3] = np.nan, np.inf
    middle, low, high = statistics.iqm_curve(scores)
    assert np.isnan([middle[1], low[1], high[1]]).all()
    assert middle[2] == low[2] == high[2] == scores[0, 2]
    alone = statistics.iqm_curve(scores[2:, 3:])  # without the missing values
    np.testing.assert_allclose([middle[3], low[3], high[3]], np.concatenate(alone))
    assert ((low < middle) & (middle < high))[[0, 3]].all()


def test_describe():
    assert statistics.describe([497.0, 497.0, 497.0]) == "497 [497, 497]"
    assert statistics.describe([12345.6]) == "12,346"
    assert statistics.describe([-0.5, np.nan]) == "-0.5 (1 of 2 runs)"
    assert statistics.describe([np.nan]) == "unknown"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.iqm([]), r"shape \(0, 1\).*one row per run"),
        (lambda: statistics.iqm(3.0), r"shape \(\)"),
        (lambda: statistics.probability_of_improvement(X, Y[:, :2]), "3 tasks and `y` has 2"),
        (lambda: statistics.stratified_bootstrap(X, np.mean), "last two axes"),
        (lambda: statistics.stratified_bootstrap(X, confidence=95), "`confidence` is 95"),
        (lambda: statistics.stratified_bootstrap(X, num_resamples=0), "`num_resamples` is 0"),
        (lambda: statistics.iqm_curve(X, confidence=0.0), "`confidence` is 0.0"),
    ],
)
def test_errors_name_the_problem_and_the_cure(call, message):
    with pytest.raises(ValueError, match=message):
        call()
