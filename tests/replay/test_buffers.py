"""Replay: what is held, how often it is drawn, and that the ring stays where it is."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rljax import replay
from rljax.experiment import checkpoint
from rljax.replay import ring
from rljax.training import runs
from rljax.types import Shared, Transition


def item(number):
    """A transition whose every field tells its number; images and flags have their own types."""
    number = jnp.asarray(number)
    return Transition(
        obs={"image": jnp.stack([number % 251] * 3, -1).astype(jnp.uint8), "number": number},
        action=number.astype(jnp.int16), reward=number.astype(jnp.float32),
        terminated=number % 2 == 0, truncated=number % 3 == 0, next_obs=-number,
    )  # fmt: skip


def items(start, num_steps, num_envs):
    return item(start + jnp.arange(num_steps * num_envs).reshape(num_steps, num_envs))


def kinds(capacity, batch_size):
    return {
        "uniform": replay.uniform(capacity, batch_size),
        "prioritized": replay.prioritized(capacity, batch_size),
        "rank_based": replay.rank_based(capacity, batch_size, sort_every=4),
    }


KINDS = tuple(kinds(1, 1))


@functools.cache
def add_to(buffer):
    return jax.jit(buffer.add)


@functools.cache
def sample_from(buffer):
    return jax.jit(jax.vmap(buffer.sample, (None, 0)))


def filled(buffer, count, start=0):
    """A replay to which `count` items were added one by one."""
    state = buffer.init(item(0))
    for number in range(start, start + count):
        state = add_to(buffer)(state, items(number, 1, 1))
    return state


def ring_of(state):
    return state if isinstance(state, ring.Ring) else state.ring


def draw_many(buffer, state, times, key=None):
    """Samples `[times, N]`."""
    keys = jax.random.split(jax.random.key(0) if key is None else key, times)
    return sample_from(buffer)(state, keys)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ring_keeps_the_latest(kind):
    """K22: 7 into 5 leaves 5, 6, 2, 3, 4; before, no empty slot is drawn."""
    buffer = kinds(5, 4)[kind]
    state = buffer.init(item(0))
    for number in range(7):
        state = add_to(buffer)(state, items(number, 1, 1))
        assert buffer.size(state) == min(number + 1, 5)
        drawn = draw_many(buffer, state, 500).transitions.reward
        assert set(np.unique(drawn)) == set(range(max(0, number - 4), number + 1))
    np.testing.assert_array_equal(ring.contents(ring_of(state)).reward, [5, 6, 2, 3, 4])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (2, 3), (3, 4)])
def test_batches_of_any_shape_wrap_around(kind, shape):
    buffer = kinds(13, 4)[kind]
    state, count, add = buffer.init(item(0)), shape[0] * shape[1], jax.jit(buffer.add)
    held = {}
    for call in range(9):
        state = add(state, items(100 * call, *shape))
        for place in range(count):
            held[(call * count + place) % 13] = 100 * call + place
    assert buffer.size(state) == 13
    expected = [held[slot] for slot in range(13)]
    np.testing.assert_array_equal(ring.contents(ring_of(state)).reward, expected)
    assert set(np.unique(draw_many(buffer, state, 500).transitions.reward)) == set(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_keep_their_types_and_belong_together(kind):
    buffer = kinds(64, 32)[kind]
    drawn = draw_many(buffer, filled(buffer, 90), 20).transitions
    expected = item(drawn.reward.astype(jnp.int32))
    for got, wanted in zip(jax.tree.leaves(drawn), jax.tree.leaves(expected), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)
    assert drawn.obs["image"].dtype == jnp.uint8 and drawn.terminated.dtype == bool


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_skipped_is_not_stored(kind):
    """Not where the ring is empty, and not over the oldest where it is full."""
    buffer = kinds(8, 4)[kind]
    state = buffer.add(buffer.init(item(0)), items(0, 3, 2), 4)
    assert buffer.size(state) == 2
    assert set(np.unique(draw_many(buffer, state, 100).transitions.reward)) == {4, 5}
    state = buffer.add(state, items(10, 3, 2), jnp.int32(0))
    state = buffer.add(state, items(20, 3, 2), jnp.int32(5))
    np.testing.assert_array_equal(
        ring.contents(ring_of(state)).reward, [25, 5, 10, 11, 12, 13, 14, 15]
    )
    assert buffer.size(buffer.add(state, items(30, 3, 2), 6)) == 8


def test_uniform_draws_uniformly():
    buffer = replay.uniform(1000, 100)
    state = filled(buffer, 300)
    drawn = draw_many(buffer, state, 2000)
    counts = np.bincount(drawn.indices.ravel(), minlength=1000)
    assert counts[300:].sum() == 0
    assert stats.chisquare(counts[:300]).pvalue >= 1e-6
    np.testing.assert_array_equal(drawn.probability, np.float32(1 / 300))
    weights = (drawn.probability / drawn.min_probability[:, None]) ** -0.4
    np.testing.assert_array_equal(weights, 1.0)
    assert buffer.reprioritize(state, drawn.indices[0], jnp.ones(100)) is state


# Proportional priorities


def with_errors(errors, **options):
    """A prioritized replay that holds an item of each TD error."""
    buffer = replay.prioritized(len(errors), min(4, len(errors)), **options)
    state = buffer.init(item(0))
    state = buffer.add(state, items(0, len(errors), 1))
    return buffer, buffer.reprioritize(state, jnp.arange(len(errors)), jnp.asarray(errors))


def leaves_of(state):
    return np.asarray(state.tree.leaves).ravel()


def test_priorities_by_hand():
    """K25g: `(|error| + 0.01) ** 0.6`; a negative error counts as a positive one."""
    buffer, state = with_errors([0.5, -2.0, 0.0, 1.5], exponent=0.6, epsilon=0.01)
    expected = [0.667640, 1.520259, 0.063096, 1.280519]
    np.testing.assert_allclose(leaves_of(state)[:4], expected, rtol=1e-5)
    drawn = draw_many(buffer, state, 200)
    expected = np.array([0.189052, 0.430484, 0.017866, 0.362598])
    np.testing.assert_allclose(drawn.probability, expected[drawn.indices], rtol=1e-4)
    np.testing.assert_allclose(drawn.min_probability, 0.017866, rtol=1e-4)
    counts = np.bincount(drawn.indices.ravel(), minlength=4)
    assert (np.abs(counts / counts.sum() - expected) < 0.03).all()


def test_importance_weights_by_hand():
    """K25h, of the tree with leaves 3 10 12 4 1 2 8 2, over the largest of all that is held."""
    leaves = np.array([3, 10, 12, 4, 1, 2, 8, 2], np.float32)
    buffer, state = with_errors(leaves, exponent=1.0, epsilon=1e-9)
    drawn = draw_many(buffer, state, 100)
    for beta, expected in (
        (0.4, [0.6444, 0.3981, 0.3701, 0.5743, 1, 0.7579, 0.4353, 0.7579]),
        (1.0, [1 / 3, 0.1, 1 / 12, 0.25, 1, 0.5, 0.125, 0.5]),
    ):
        weights = (drawn.probability / drawn.min_probability[:, None]) ** -beta
        np.testing.assert_allclose(weights, np.array(expected)[drawn.indices], atol=5e-5)
    # unbiased at beta 1: the sum of P_i f_i / (N P_i) is the mean of f
    probability = leaves_of(state)[:8] / leaves.sum()
    assert (probability / (8 * probability) * np.arange(8)).sum() == pytest.approx(3.5)


def test_weights_know_the_items_held_and_not_the_capacity():
    """K25i: half full, the empty slots are no part of N or of the least probability."""
    errors = np.array([3.0, 10, 12, 4], np.float32)
    small, full = with_errors(errors, exponent=1.0, epsilon=1e-9)
    large = replay.prioritized(8, 4, 1.0, 1e-9)
    half = large.add(large.init(item(0)), items(0, 4, 1))
    half = large.reprioritize(half, jnp.arange(4), jnp.asarray(errors))
    a, b = small.sample(full, jax.random.key(3)), large.sample(half, jax.random.key(3))
    for got, wanted in zip(b, a, strict=True):
        jax.tree.map(np.testing.assert_array_equal, got, wanted)
    np.testing.assert_allclose(a.min_probability, 3 / 29, rtol=1e-6)


def test_new_items_get_the_highest_priority_there_ever_was():
    """K25j: it stays when the item that had it loses it."""
    buffer = replay.prioritized(8, 2, exponent=1.0, epsilon=1e-9)
    state = filled(buffer, 2)
    np.testing.assert_array_equal(leaves_of(state)[:3], [1, 1, 0])
    state = buffer.reprioritize(state, jnp.array([0]), jnp.array([5.0]))
    state = buffer.reprioritize(state, jnp.array([0]), jnp.array([0.1]))
    state = buffer.add(state, items(2, 1, 1))
    np.testing.assert_allclose(leaves_of(state)[:4], [0.1, 1, 5, 0], rtol=1e-6)


def test_weights_are_those_of_cpprb():
    cpprb = pytest.importorskip("cpprb", reason="an oracle that no test may need")
    errors = np.random.default_rng(0).exponential(size=10)
    other = cpprb.PrioritizedReplayBuffer(16, {"number": {}}, alpha=0.6, eps=1e-4)
    for number, error in enumerate(errors):
        other.add(number=number, priorities=error)
    buffer, state = with_errors(errors, exponent=0.6, epsilon=1e-4)
    drawn = draw_many(buffer, state, 200)
    weights = (drawn.probability / drawn.min_probability[:, None]) ** -0.4
    ours = dict(zip(drawn.indices.ravel().tolist(), weights.ravel().tolist(), strict=True))
    theirs = other.sample(500, beta=0.4)
    assert set(theirs["indexes"].tolist()) == set(range(10))
    np.testing.assert_allclose(
        theirs["weights"], [ours[index] for index in theirs["indexes"].tolist()], rtol=1e-5
    )


@pytest.mark.parametrize("exponent", [0.0, 0.6])
def test_no_exponent_is_uniform(exponent):
    """Exponent 0: equal probabilities and weights 1 whatever beta; 0.6 is there to differ."""
    buffer, state = with_errors(np.arange(1.0, 11.0), exponent=exponent)
    drawn = draw_many(buffer, state, 50)
    weights = (drawn.probability / drawn.min_probability[:, None]) ** -0.7
    assert bool((weights == 1).all()) == (exponent == 0)


def test_a_batch_has_one_item_of_each_share():
    buffer = replay.prioritized(64, 16, exponent=1.0)
    state = filled(buffer, 64)
    places = draw_many(buffer, state, 50).indices // 4  # equal priorities: four a share
    np.testing.assert_array_equal(places, np.broadcast_to(np.arange(16), (50, 16)))


def test_no_item_that_is_gone_or_not_yet_there_is_ever_drawn():
    """10^7 draws while the ring fills up and wraps around, priorities of all sizes."""
    capacity, batch, width = 50, 1000, 7
    buffer = replay.prioritized(capacity, batch // 20, exponent=1.0)

    def step(carry, key):
        state, number = carry
        state = buffer.add(state, items(number, 1, width))
        drawn = jax.vmap(buffer.sample, (None, 0))(state, jax.random.split(key, 20))
        seen = drawn.transitions.reward
        oldest = jnp.maximum(0, number + width - capacity)
        wrong = ((seen < oldest) | (seen >= number + width) | (drawn.probability <= 0)).sum()
        error = jnp.exp(4 * jax.random.normal(key, (batch,)))
        state = buffer.reprioritize(state, drawn.indices.ravel(), error)
        return (state, number + width), wrong

    @jax.jit
    def run(state, key):
        return jax.lax.scan(step, (state, jnp.int32(1)), jax.random.split(key, 10_000))[1]

    assert run(buffer.init(item(0)), jax.random.key(0)).sum() == 0


def test_a_tabular_average_is_unbiased_at_beta_1():
    """A reward of 10 with probability 0.1: weighted by 1 / (N P), Q is 1.00 +- 0.03.

    Q begins at 5, because errors of exactly 0 would leave items in reach by epsilon alone.
    """
    buffer = replay.prioritized(2000, 32, exponent=0.6)
    rewards = 10.0 * (np.arange(2000) % 10 == 0)
    transitions = item(jnp.arange(2000)[:, None])._replace(reward=jnp.asarray(rewards)[:, None])

    def step(carry, key):
        state, value, weight = carry
        drawn = buffer.sample(state, key)
        weights = 1 / (buffer.size(state) * drawn.probability)
        error = drawn.transitions.reward - value / weight
        state = buffer.reprioritize(state, drawn.indices, error)
        value = value + (weights * drawn.transitions.reward).sum()
        return (state, value, weight + weights.sum()), drawn.transitions.reward.mean()

    state = buffer.add(buffer.init(item(0)), transitions)
    begin, keys = (state, 5.0, 1.0), jax.random.split(jax.random.key(0), 10_000)
    (_, value, weight), means = jax.jit(lambda: jax.lax.scan(step, begin, keys))()
    assert abs(value / weight - 1) < 0.03
    assert means[-5000:].mean() > 2  # without weights it would be far off


# Ranks


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
def test_ranks_by_hand(exponent):
    buffer = replay.rank_based(8, 4, exponent, sort_every=1)
    state = buffer.add(buffer.init(item(0)), items(0, 5, 1))
    errors = np.array([0.5, -2.0, 0.0, 1.5, 1.0], np.float32)
    state = buffer.reprioritize(state, jnp.arange(5), jnp.asarray(errors))
    state = buffer.add(state, items(0, 1, 1))  # sorts; the new one has the largest error, 2
    expected = np.array([5, 2, 6, 3, 4, 1.0]) ** -exponent  # a tie goes to the older
    expected[[1, 5]] = np.array([1, 2.0]) ** -exponent
    expected /= expected.sum()
    drawn = draw_many(buffer, state, 5000)
    np.testing.assert_allclose(drawn.probability, expected[drawn.indices], rtol=1e-5)
    np.testing.assert_allclose(drawn.min_probability, expected.min(), rtol=1e-5)
    counts = np.bincount(drawn.indices.ravel(), minlength=6)
    assert counts.size == 6 and (np.abs(counts / counts.sum() - expected) < 0.02).all()


def test_ranks_between_two_sorts_are_exact_about_themselves():
    """Draws follow the probabilities that are reported, sorted or not."""
    buffer = replay.rank_based(64, 16, sort_every=24)
    state = filled(buffer, 40)
    error = jnp.asarray(np.random.default_rng(0).exponential(size=40).astype(np.float32))
    state = buffer.reprioritize(state, jnp.arange(40), error)
    state = add_to(buffer)(state, items(40, 1, 3))
    drawn = draw_many(buffer, state, 5000)
    counts = np.bincount(drawn.indices.ravel(), minlength=43)
    expected = np.zeros(43)
    expected[drawn.indices.ravel()] = drawn.probability.ravel()
    assert expected.sum() == pytest.approx(1, abs=1e-5)
    assert stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue >= 1e-6


# Programs


@pytest.mark.parametrize("kind", KINDS)
def test_jit_vmap_and_scan(kind):
    """A scan under vmap is a loop of single calls; floats may differ in the last bit."""
    buffer = kinds(16, 4)[kind]

    def step(state, numbers):
        number, key = numbers
        state = buffer.add(state, items(number, 2, 3))
        drawn = buffer.sample(state, key)
        return buffer.reprioritize(state, drawn.indices, drawn.transitions.reward), drawn

    def run(key):
        return jax.lax.scan(step, buffer.init(item(0)), (jnp.arange(6), jax.random.split(key, 6)))

    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.jit(jax.vmap(run))(keys)
    for i in range(3):
        state, call = buffer.init(item(0)), jax.jit(step)
        for t, key in enumerate(jax.random.split(keys[i], 6)):
            state, drawn = call(state, (jnp.int32(t), key))
        one = jax.tree.map(lambda x, i=i: x[i], many)
        last = jax.tree.map(lambda x: x[-1], one[1])
        for got, wanted in zip(
            jax.tree.leaves((one[0], last)), jax.tree.leaves((state, drawn)), strict=True
        ):
            tolerance = 1e-6 if got.dtype == jnp.float32 else 0
            np.testing.assert_allclose(got, wanted, rtol=tolerance)


def over_three_runs(buffer, num_steps=3):
    """`training.runs` over a loop of add, sample and reprioritize; its argument and program."""

    def one(work):
        def step(carry, _):
            state, key, total = carry
            key, use = jax.random.split(key)
            state = buffer.add(state, items(0, 2, 3))
            drawn = buffer.sample(state, use)
            state = buffer.reprioritize(state, drawn.indices, drawn.transitions.reward)
            total += (
                drawn.probability / drawn.min_probability
            ).sum()  # nothing is left out as unused
            return (state, key, total), None

        return jax.lax.scan(step, work, None, num_steps)[0]

    def start(key):
        return buffer.init(item(0)), key, jnp.float32(0)

    begin = jax.vmap(start)(jax.random.split(jax.random.key(0), 3))
    return begin, runs.over_runs(one, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resumed", [False, True])
def test_the_ring_is_not_copied_when_runs_go_side_by_side(kind, resumed):
    """No `cond`, and no select the size of the ring: for a fresh state and for one of later."""
    capacity = 4096
    begin, program = over_three_runs(kinds(capacity, 4)[kind])
    if resumed:
        begin = jax.jit(program)(begin)
    shared = [x for x in jax.tree.leaves(begin, is_leaf=is_shared) if is_shared(x)]
    assert len(shared) >= 2 and all(x.value.shape == (3,) for x in shared)
    found = list(equations(jax.make_jaxpr(program)(begin).jaxpr))
    assert any("scatter" in name for name, _ in found) and ("scan", 0) not in found
    sizes = [size for name, size in found if name in ("cond", "select_n", "copy")]
    assert max(sizes) < capacity and "cond" not in {name for name, _ in found}


def is_shared(x):
    return isinstance(x, Shared)


def equations(jaxpr):
    """Every primitive of a program, also of those inside, and the size of its largest result."""
    for equation in jaxpr.eqns:
        sizes = [getattr(x.aval, "size", 0) for x in equation.outvars]
        yield equation.primitive.name, max(sizes, default=0)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_the_compiled_loop_copies_neither_ring_nor_tree(kind):
    """By the compiler's own program: all that is copied in its loop is small."""
    capacity = 2**15
    begin, program = over_three_runs(kinds(capacity, 4)[kind])
    text = jax.jit(program, donate_argnums=0).lower(begin).compile().as_text()
    loops = text[: text.index("\nENTRY ")]  # what comes before is called from there
    assert re.search(r" = \S+ scatter\(", loops) and " while(" in text
    copied = re.findall(r" = \w+\[([\d,]*)\]\S* copy\(", loops)
    assert max(math.prod(map(int, filter(None, dims.split(",")))) for dims in copied) < capacity / 8


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_from_a_checkpoint_changes_no_bit(kind, tmp_path):
    buffer = kinds(16, 4)[kind]
    advance = jax.jit(over_three_runs(buffer)[1])
    begin, _ = over_three_runs(buffer)
    half = advance(begin)
    again, _ = checkpoint.load(checkpoint.save(tmp_path, half, {}, step=3), half)
    for got, wanted in zip(
        jax.tree.leaves(advance(again)), jax.tree.leaves(advance(half)), strict=True
    ):
        if jnp.issubdtype(got.dtype, jax.dtypes.prng_key):
            got, wanted = jax.random.key_data(got), jax.random.key_data(wanted)
        assert np.asarray(got).tobytes() == np.asarray(wanted).tobytes()


def test_counters_do_not_overflow():
    """The cursor is a place and the size is bounded, so neither grows with the steps."""
    state = filled(replay.uniform(7, 2), 20)
    assert state.cursor.value == 20 % 7 and state.size.value == 7
    assert state.cursor.value.dtype == state.size.value.dtype == jnp.int32


# What cannot be


@pytest.mark.parametrize("make", [replay.uniform, replay.prioritized, replay.rank_based])
def test_sizes_that_cannot_be(make):
    with pytest.raises(ValueError, match="`batch_size` is 33, but replay holds only 32"):
        make(32, 33)
    with pytest.raises(ValueError, match="`capacity` is 0, but it must be at least 1"):
        make(0, 1)
    with pytest.raises(ValueError, match="`batch_size` is 0"):
        make(32, 0)
    buffer = make(32, 4)
    with pytest.raises(ValueError, match="3 x 11 = 33 items .* only 32"):
        jax.eval_shape(buffer.add, jax.eval_shape(buffer.init, item(0)), items(0, 3, 11))
    with pytest.raises(ValueError, match="1,000,000,000,000, .* TiB .* make it smaller than"):
        jax.eval_shape(make(10**12, 4).init, item(0))


def test_options_that_cannot_be():
    for exponent in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="`exponent` is .*at least 0 and at most 1"):
            replay.prioritized(8, 4, exponent)
        with pytest.raises(ValueError, match="`exponent`"):
            replay.rank_based(8, 4, exponent)
    with pytest.raises(ValueError, match="`epsilon` is 0, but it must be above 0"):
        replay.prioritized(8, 4, epsilon=0)
    with pytest.raises(ValueError, match="`sort_every` is 0"):
        replay.rank_based(8, 4, sort_every=0)

    def traced(exponent):  # a tracer carries no value to check
        return replay.prioritized(8, 4, exponent).init(item(0)).highest + exponent

    assert jax.jit(traced)(0.5) == 1.5


def test_memory_is_checked_before_it_is_taken():
    image = jax.ShapeDtypeStruct((84, 84, 4), jnp.uint8)
    with pytest.raises(ValueError, match="`buffer_size` is 1,000,000,000, .* 28,224 bytes"):
        replay.check_memory(10**9, image, "buffer_size")
    replay.check_memory(1000, image)
    with pytest.raises(ValueError, match="at most 1,073,741,824"):
        replay.check_memory(2**30 + 1, ())
