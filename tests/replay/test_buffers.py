"""Every kind of replay buffer: which items it stores and samples; and uniform replay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replay_helpers import KINDS, filled, item, items, jitted_add, kinds, ring_of, sample_many
from scipy import stats

from rljax import replay
from rljax.replay import ring


@pytest.mark.parametrize("kind", KINDS)
def test_new_items_overwrite_the_oldest(kind):
    """7 items in 5 slots leave 5, 6, 2, 3, 4; before that, no empty slot is sampled."""
    buffer = kinds(5, 4)[kind]
    state = buffer.init(item(0))
    for number in range(7):
        state = jitted_add(buffer)(state, items(number, 1, 1))
        assert buffer.size(state) == min(number + 1, 5)
        sampled = sample_many(buffer, state, 500).transitions.reward
        assert set(np.unique(sampled)) == set(range(max(0, number - 4), number + 1))
    np.testing.assert_array_equal(ring.contents(ring_of(state)).reward, [5, 6, 2, 3, 4])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (2, 3), (3, 4)])
def test_rollouts_of_any_shape_wrap_around_the_ring(kind, shape):
    buffer = kinds(13, 4)[kind]
    state, count, add = buffer.init(item(0)), shape[0] * shape[1], jax.jit(buffer.add)
    slots = {}
    for call in range(9):
        state = add(state, items(100 * call, *shape))
        for place in range(count):
            slots[(call * count + place) % 13] = 100 * call + place
    assert buffer.size(state) == 13
    expected = [slots[slot] for slot in range(13)]
    np.testing.assert_array_equal(ring.contents(ring_of(state)).reward, expected)
    assert set(np.unique(sample_many(buffer, state, 500).transitions.reward)) == set(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_keep_their_dtypes_and_stay_together(kind):
    buffer = kinds(64, 32)[kind]
    sampled = sample_many(buffer, filled(buffer, 90), 20).transitions
    expected = item(sampled.reward.astype(jnp.int32))
    for x, y in zip(jax.tree.leaves(sampled), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    assert sampled.obs["image"].dtype == jnp.uint8 and sampled.terminated.dtype == bool


@pytest.mark.parametrize("kind", KINDS)
def test_skipped_items_are_not_stored(kind):
    """Neither in the empty slots of a new ring, nor over the oldest items of a full one."""
    buffer = kinds(8, 4)[kind]
    state = buffer.add(buffer.init(item(0)), items(0, 3, 2), 4)
    assert buffer.size(state) == 2
    assert set(np.unique(sample_many(buffer, state, 100).transitions.reward)) == {4, 5}
    state = buffer.add(state, items(10, 3, 2), jnp.int32(0))
    state = buffer.add(state, items(20, 3, 2), jnp.int32(5))
    np.testing.assert_array_equal(
        ring.contents(ring_of(state)).reward, [25, 5, 10, 11, 12, 13, 14, 15]
    )
    assert buffer.size(buffer.add(state, items(30, 3, 2), 6)) == 8


def test_uniform_replay_samples_uniformly():
    buffer = replay.uniform(1000, 100)
    state = filled(buffer, 300)
    sample = sample_many(buffer, state, 2000)
    counts = np.bincount(sample.indices.ravel(), minlength=1000)
    assert counts[300:].sum() == 0
    assert stats.chisquare(counts[:300]).pvalue >= 1e-6
    np.testing.assert_array_equal(sample.probability, np.float32(1 / 300))
    weights = (sample.probability / sample.min_probability[:, None]) ** -0.4
    np.testing.assert_array_equal(weights, 1.0)
    assert buffer.reprioritize(state, sample.indices[0], jnp.ones(100)) is state


def test_counters_do_not_overflow():
    """The cursor is a slot and the size is bounded, so neither grows with the steps."""
    state = filled(replay.uniform(7, 2), 20)
    assert state.cursor.value == 20 % 7 and state.size.value == 7
    assert state.cursor.value.dtype == state.size.value.dtype == jnp.int32


@pytest.mark.parametrize("make", [replay.uniform, replay.prioritized, replay.rank_based])
def test_impossible_sizes_are_rejected(make):
    with pytest.raises(ValueError, match="`batch_size` is 33, but the replay buffer has only 32"):
        make(32, 33)
    with pytest.raises(ValueError, match="`capacity` is 0, but it must be at least 1"):
        make(0, 1)
    with pytest.raises(ValueError, match="`batch_size` is 0"):
        make(32, 0)
    buffer = make(32, 4)
    with pytest.raises(ValueError, match="3 x 11 = 33 items .* only 32 slots"):
        jax.eval_shape(buffer.add, jax.eval_shape(buffer.init, item(0)), items(0, 3, 11))
    with pytest.raises(ValueError, match="1,000,000,000,000, .* TiB .* make it smaller than"):
        jax.eval_shape(make(10**12, 4).init, item(0))


def test_options_outside_their_ranges_are_rejected():
    for exponent in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="`exponent` is .*at least 0 and at most 1"):
            replay.prioritized(8, 4, exponent)
        with pytest.raises(ValueError, match="`exponent`"):
            replay.rank_based(8, 4, exponent)
    with pytest.raises(ValueError, match="`epsilon` is 0, but it must be above 0"):
        replay.prioritized(8, 4, epsilon=0)
    with pytest.raises(ValueError, match="`sort_every` is 0"):
        replay.rank_based(8, 4, sort_every=0)

    def traced(exponent):  # the value of a tracer is unknown and not checked
        return replay.prioritized(8, 4, exponent).init(item(0)).max_priority + exponent

    assert jax.jit(traced)(0.5) == 1.5


def test_memory_is_checked_before_it_is_allocated():
    image = jax.ShapeDtypeStruct((84, 84, 4), jnp.uint8)
    with pytest.raises(ValueError, match="`buffer_size` is 1,000,000,000, .* 28,224 bytes"):
        replay.check_memory(10**9, image, "buffer_size")
    replay.check_memory(1000, image)
    with pytest.raises(ValueError, match="at most 1,073,741,824"):
        replay.check_memory(2**30 + 1, ())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (replay.uniform, "`replay` is the function `uniform` without the function `init`, but"),
        ("prioritized", "`replay` is of type `str` without the function `init`, but"),
        (None, "`replay` is of type `NoneType` without"),
        (tuple(replay.uniform(8, 2)), "`replay` is of type `tuple` without"),
        (
            replay.uniform(8, 2)._replace(reprioritize=None),
            "`replay` is of type `Replay` without the function `reprioritize`, but",
        ),
    ],
)
def test_other_objects_than_a_replay_are_rejected_in_one_sentence(given, message):
    with pytest.raises(ValueError) as error:
        replay.check_replay(given)
    text = str(error.value)
    assert text.startswith(message) and "must be a `rljax.types.Replay`" in text
    assert "\n" not in text
    with pytest.raises(ValueError, match="must be a `rljax.types.Replay`"):
        replay.n_step(given, 3, 0.9, 1)


def test_every_kind_of_replay_passes_the_check():
    for buffer in kinds(8, 2).values():
        replay.check_replay(buffer)
        replay.check_replay(replay.n_step(buffer, 3, 0.9, 1))
