"""Lists of settings, the best policies during training, and runs that stopped early."""

import dataclasses

import numpy as np
import pytest
from result_helpers import POINTS, make, with_best

from rljax.results import storage
from rljax.results.arrays import Best
from rljax.results.files import load_result

SETTINGS = {"setting": [{"learning_rate": 1e-3, "clip_eps": 0.1}, {"learning_rate": 3e-4}]}
BOTH = {**SETTINGS, "gamma": [0.9, 0.99, 1.0]}


def test_a_list_of_settings_is_one_axis():
    result = make(sweep=BOTH, num_seeds=3)
    assert result.returns.shape == (2, 3, 3, POINTS)
    assert result.settings[1] == {"learning_rate": 1e-3, "clip_eps": 0.1, "gamma": 0.99}
    assert result.settings[3] == {"learning_rate": 3e-4, "gamma": 0.9}
    returns = result.evaluation["returns"].astype(np.float64)
    np.testing.assert_allclose(result.scores(True)[4], returns[1, 1].mean(-1))


def test_the_figure_of_a_list_of_settings_names_its_fields():
    (legend,) = make(sweep=SETTINGS).plot().legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["learning_rate=0.001, clip_eps=0.1", "learning_rate=0.0003"]
    assert not legend.get_title().get_text()


@pytest.mark.parametrize("sweep", [{}, SETTINGS, BOTH])
def test_best_and_stopped_are_saved_bit_for_bit(tmp_path, sweep):
    result = with_best(make(sweep=sweep))
    stopped = np.where(result.best.step > 50_000, np.nan, result.best.step)
    result = dataclasses.replace(result, stopped=stopped, plan=("plan",))
    loaded = load_result(result.save(tmp_path))
    assert loaded.sweep == sweep and loaded.settings == result.settings
    assert loaded.plan is None and loaded.best.state is None
    pairs = [(result.stopped, loaded.stopped), *zip(result.best[:3], loaded.best[:3], strict=True)]
    for before, after in pairs:
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        assert before.tobytes() == after.tobytes()


def test_a_result_of_an_older_version_has_neither_best_nor_stopped(tmp_path):
    make().save(tmp_path)
    assert "best/step" not in storage.read(tmp_path, ["agent"])[1]
    loaded = load_result(tmp_path)
    assert (loaded.best, loaded.stopped) == (None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stopped": np.zeros(5)}, r"`stopped` has shape \(5,\), but it must be \(4,\)"),
        ({"best": Best(np.zeros(3), np.zeros((4, 5)), np.zeros((4, 5)))}, "`best/step` has shape"),
        ({"best": Best(np.zeros(4), np.zeros((3, 5)), np.zeros((4, 5)))}, "`best/returns` has"),
        ({"best": Best(np.zeros(4), np.zeros((4, 5)), np.zeros(5))}, "`best/lengths` has"),
    ],
)
def test_wrong_shapes_of_best_and_stopped_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make(), **changes)
