"""Annealing per update, clipping of the global norm, and the check of an optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rljax.ops import optimizers

NUM_UPDATES, STEPS = 10, 6  # six minibatch steps per update


def rates(count, rate=2.5e-4):
    return optimizers.learning_rate_schedule(rate, NUM_UPDATES, STEPS)(jnp.asarray(count))


def test_the_rate_is_annealed_from_the_full_rate_to_its_nth_part():
    of_update = rates(np.arange(NUM_UPDATES) * STEPS)
    np.testing.assert_allclose(of_update, 2.5e-4 * (1 - np.arange(10) / 10), rtol=1e-5)
    np.testing.assert_allclose((of_update[0], of_update[-1]), (2.5e-4, 2.5e-5), rtol=1e-5)


def test_all_minibatches_of_an_update_have_the_same_rate():
    every = rates(np.arange(NUM_UPDATES * STEPS)).reshape(NUM_UPDATES, STEPS)
    np.testing.assert_array_equal(every, np.tile(every[:, :1], STEPS))
    assert (np.diff(every[:, 0]) < 0).all()


def test_the_rate_is_zero_after_the_last_update():
    """It does not become negative, which would increase the loss."""
    late = rates(np.array([NUM_UPDATES, NUM_UPDATES + 1, 3 * NUM_UPDATES]) * STEPS)
    np.testing.assert_array_equal(late, np.zeros(3))


def test_the_default_is_one_step_per_update():
    schedule = optimizers.learning_rate_schedule(1.0, 4)
    np.testing.assert_allclose([schedule(i) for i in range(4)], [1.0, 0.75, 0.5, 0.25])


def test_an_optimizer_uses_the_rate_of_the_update():
    schedule = optimizers.learning_rate_schedule(1.0, NUM_UPDATES, STEPS)
    optimizer = optimizers.clipped(optax.sgd(schedule), 10.0)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    grads = {"a": jnp.ones(2), "b": jnp.ones(())}

    def step(state, _):
        updates, state = optimizer.update(grads, state, params)
        return state, updates

    _, updates = jax.lax.scan(step, optimizer.init(params), length=NUM_UPDATES * STEPS)
    expected = -np.repeat(1 - np.arange(NUM_UPDATES) / NUM_UPDATES, STEPS)
    np.testing.assert_allclose(updates["b"], expected, rtol=1e-5)
    np.testing.assert_allclose(updates["a"], np.stack([expected] * 2, 1), rtol=1e-5)


def test_learning_rates_may_be_batched():
    swept = jnp.array([1e-3, 1e-4])
    got = jax.vmap(lambda rate: rates(STEPS, rate))(swept)
    np.testing.assert_allclose(got, 0.9 * swept, rtol=1e-5)


# Clipping


def step(grads, max_grad_norm, inner=None):
    optimizer = optimizers.clipped(inner or optax.sgd(1.0), max_grad_norm)
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
    return updates


GRADS = {"a": jnp.array([[3.0, 0.0]]), "b": jnp.array(-4.0)}  # of norm 5


def test_the_global_norm_is_clipped_not_each_element():
    updates = step(GRADS, 0.5)
    np.testing.assert_allclose(updates["a"], [[-0.3, 0.0]], rtol=1e-5)
    np.testing.assert_allclose(updates["b"], 0.4, rtol=1e-5)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, GRADS)


@pytest.mark.parametrize("max_grad_norm", [5.0, 100.0])
def test_small_gradients_are_unchanged(max_grad_norm):
    updates = step(GRADS, max_grad_norm)
    np.testing.assert_allclose(updates["a"], -GRADS["a"], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -GRADS["b"], rtol=1e-6)


def test_a_zero_gradient_gives_a_zero_step():
    for x in jax.tree.leaves(step(jax.tree.map(jnp.zeros_like, GRADS), 0.5)):
        np.testing.assert_array_equal(x, np.zeros(x.shape))


def test_one_flat_vector_gives_the_same_steps_as_a_tree():
    """Three steps of Adam, whose moments must match their parameters."""
    flat = optimizers.clipped(optax.adam(1e-2), 0.5)
    plain = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2))
    states = [flat.init(GRADS), plain.init(GRADS)]
    for scale in (1.0, -0.3, 0.01):
        grads = jax.tree.map(lambda x, scale=scale: scale * jnp.cos(x), GRADS)
        steps = []
        for i, optimizer in enumerate((flat, plain)):
            updates, states[i] = optimizer.update(grads, states[i], GRADS)
            steps.append(updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *steps)


def test_norms_may_be_batched():
    norms = jnp.array([0.5, 1.0])
    updates = jax.vmap(lambda norm: step(GRADS, norm))(norms)
    np.testing.assert_allclose(updates["b"], 0.8 * norms, rtol=1e-5)


@pytest.mark.parametrize("optimizer", [optax.adam, 1e-3, None, optax.constant_schedule(0.1)])
def test_other_objects_are_no_optimizers(optimizer):
    with pytest.raises(
        ValueError, match=r"must be an optax `GradientTransformation`, such as `optax.adam"
    ):
        optimizers.check_optimizer(optimizer)
    optimizers.check_optimizer(optax.adam(1e-3))


def test_a_skipped_step_changes_nothing_but_schedules():
    """An annealed rate, as a schedule and as an injected hyperparameter, with momentum."""
    rate = optimizers.learning_rate_schedule(1.0, 4)
    annealed = optax.chain(optax.trace(0.9), optax.scale_by_learning_rate(rate))
    for optimizer in (annealed, optax.inject_hyperparams(optax.sgd)(rate, momentum=0.9)):
        params = jnp.zeros(1)
        state = optimizer.init(params)
        for skipped in (False, True, True, False):
            new = optimizers.apply_gradients(optimizer, jnp.ones(1), state, params)
            params, state = optimizers.skip_where(jnp.bool_(skipped), new, (params, state))
        # the second step has a momentum of 1 + 0.9 and the rate of the fourth, 1/4
        np.testing.assert_allclose(params, [-1.0 - 0.25 * 1.9], rtol=1e-6)


# Metrics


def test_the_gradient_norm_is_that_before_clipping_and_costs_nothing_beside_it():
    grads = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.array(-4.0)}
    numbers = np.concatenate([np.ravel(x) for x in jax.tree.leaves(grads)])
    np.testing.assert_allclose(optimizers.gradient_norm(grads), np.linalg.norm(numbers), rtol=1e-6)
    by_arrays = optimizers.global_norm(grads)
    np.testing.assert_allclose(by_arrays, np.linalg.norm(numbers), rtol=1e-6)
    optimizer = optimizers.clipped(optax.sgd(1.0), 0.5)

    def roots(with_norm):
        def update(grads):
            updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
            return updates, optimizers.gradient_norm(grads) if with_norm else 0.0

        return jax.jit(update).lower(grads).compile().as_text().count(" sqrt(")

    assert roots(True) == roots(False) == 1


def test_the_norm_of_a_skipped_step_has_no_weight():
    grads = jnp.array([3.0, 4.0])
    assert optimizers.norm_of_taken_step(grads, jnp.bool_(False)) == (5.0, 1.0)
    assert optimizers.norm_of_taken_step(grads, jnp.bool_(True)) == (0.0, 0.0)
    assert optimizers.norm_of_taken_step(grads * jnp.inf, jnp.bool_(True)) == (0.0, 0.0)


def reported_rates(optimizer, rate, num_steps=3):
    """Returns the learning rates reported after each step, None where none is."""
    metric, params = optimizers.learning_rate_metric(rate), jnp.ones(2)
    state, found = optimizer.init(params), []
    for _ in range(num_steps):
        _, state = optimizer.update(params, state, params)
        found.append(metric(state).get("charts/learning_rate"))
    return found


@pytest.mark.parametrize("make", [optax.sgd, optax.adam, optax.radam, optax.rmsprop, optax.adamw])
def test_the_learning_rate_is_that_of_the_step_taken(make):
    schedule = optimizers.learning_rate_schedule(1.0, num_updates=4)
    optimizer = optimizers.clipped(make(schedule), 1.0)
    assert reported_rates(optimizer, schedule) == [1.0, 0.75, 0.5]
    assert reported_rates(optimizers.clipped(make(0.5), 1.0), 0.5) == [0.5] * 3


def test_the_learning_rate_of_an_own_optimizer_is_reported_if_its_state_holds_it():
    schedule = optimizers.learning_rate_schedule(1.0, num_updates=4)
    injected = optax.inject_hyperparams(optax.sgd)
    assert reported_rates(injected(learning_rate=schedule), None) == [1.0, 0.75, 0.5]
    chained = optax.chain(optax.clip(1.0), injected(learning_rate=0.25))
    assert reported_rates(chained, None) == [0.25] * 3
    assert reported_rates(optax.adam(schedule), None) == [None] * 3  # not in its state
    assert reported_rates(optax.chain(chained, chained), None) == [None] * 3  # which one?


def test_large_parameters_are_clipped_and_updated_as_small_ones(monkeypatch):
    """The tree and the packed vector give the same steps, and `packed` follows the same rule."""
    params = {"w": jnp.arange(12.0).reshape(3, 4), "b": jnp.ones(4)}
    grads = jax.tree.map(lambda x: x + 1.0, params)
    steps, norms = [], []
    for limit in (16, 15):
        monkeypatch.setattr(optimizers, "MAX_PACKED", limit)
        optimizer = optimizers.clipped(optax.adam(0.1), 0.5)
        start, unpack = optimizers.packed(params)
        is_vector = isinstance(start, jax.Array)
        assert is_vector == (limit == 16)
        packed_grads, _ = optimizers.packed(grads)
        updates, _ = optimizer.update(packed_grads, optimizer.init(start), start)
        steps.append(unpack(optax.apply_updates(start, updates)))
        norms.append(optimizers.gradient_norm(packed_grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *steps)
    np.testing.assert_allclose(norms, np.sqrt(sum((x**2).sum() for x in grads.values())), rtol=1e-6)
