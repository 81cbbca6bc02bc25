"""The car against intersections of line segments in float64, and its rules."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import rollout

from rljax import envs
from rljax.envs import car, worlds
from rljax.envs.wrapped import innermost

pytestmark = pytest.mark.usefixtures("quick_compiles")

KEY = jax.random.key(0)


def walls():
    """Returns the start and end points of the eight walls, `[8, 2]` each."""
    squares = []
    for low, high in ((0, 500), (120, 380)):
        corners = np.array([(low, low), (high, low), (high, high), (low, high)], np.float64)
        squares.append((corners, np.roll(corners, -1, axis=0)))
    start, end = (np.concatenate(x) for x in zip(*squares, strict=True))
    return start, end


def reference_distances(position, heading):
    """Solves `position + u ray = start + t (end - start)`, with u and t in [0, 1]: `[N, 5]`."""
    start, end = walls()
    angles = heading[:, None] + np.radians([-90, -45, 0, 45, 90])
    ray = 150 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)[:, :, None]  # [N, 5, 1, 2]
    side = np.broadcast_to(end - start, (*angles.shape, 8, 2))
    matrix = np.stack([np.broadcast_to(ray, side.shape), -side], axis=-1)
    parallel = np.abs(np.linalg.det(matrix)) < 1e-3
    matrix = np.where(parallel[..., None, None], np.eye(2), matrix)
    offset = start - position[:, None, None]
    u, t = np.moveaxis(
        np.linalg.solve(matrix, np.broadcast_to(offset, side.shape)[..., None]), -2, 0
    )
    u, t = u[..., 0], t[..., 0]
    hit = ~parallel & (u >= 0) & (u <= 1) & (t >= 0) & (t <= 1)
    return np.where(hit, 150 * u, 150).min(axis=-1)


def test_sensors_measure_the_distance_to_the_nearest_wall():
    """Also in directions that are parallel to walls, and inside the obstacle."""
    rng, count = np.random.default_rng(0), 4000
    position = rng.uniform(1, 499, (count, 2)).astype(np.float32)
    heading = rng.uniform(-70, 70, count)
    diagonal = rng.integers(-40, 40, count) * np.pi / 4
    heading = np.where(rng.random(count) < 0.3, diagonal, heading).astype(np.float32)
    state = car.CarState(jnp.array(position), jnp.array(heading))
    distance = np.asarray(jax.jit(jax.vmap(car.sensor_distances))(state))
    expected = reference_distances(position.astype(np.float64), heading.astype(np.float64))
    assert np.isfinite(distance).all() and distance.max() == 150
    # rays that graze a corner may fall on either side of it
    grazing = np.abs(distance - expected) > 0.02
    assert grazing.mean() < 1e-3
    assert 0.2 < (expected == 150).mean() < 0.6


def test_rays_along_the_line_of_a_wall_are_finite():
    """With a heading of 0, the y-component of the third ray is exactly 0."""
    position = jnp.array([[60.0, 120.0], [390.0, 380.0], [0.0, 0.0], [450.0, 500.0]])
    distance = jax.vmap(car.sensor_distances)(car.CarState(position, jnp.zeros(4)))
    assert np.isfinite(distance).all() and (distance >= 0).all() and (distance <= 150).all()
    state_of = partial(car.CarState, heading=jnp.float32(0))
    gradient = jax.vmap(jax.grad(lambda x: car.sensor_distances(state_of(x)).sum()))(position)
    assert np.isfinite(gradient).all()  # no division by zero
    np.testing.assert_allclose(distance[1], [150, 150, 110, 150, 120], rtol=1e-5)


def test_steps_turn_and_then_move():
    """Random steering of 200 cars until each collides."""
    rng, count, length = np.random.default_rng(1), 200, 70
    action = rng.normal(rng.uniform(-0.5, 0.5, (count, 1)), 1, (count, length)).astype(np.float32)
    env = worlds.from_id("Car2D")
    state, obs = jax.vmap(env.reset)(jax.random.split(KEY, count))

    def env_step(state, action):
        state, step = jax.vmap(env.step)(state, action, jnp.zeros((count, 0)))
        return state, (innermost(state), step)

    states, step = jax.jit(lambda *x: jax.lax.scan(env_step, *x)[1])(state, action.T[..., None])
    heading = -np.pi / 2 + np.cumsum(np.clip(action, -1, 1).astype(np.float64) * np.pi / 30, axis=1)
    move = 5 * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    position = np.array([450, 300]) + np.cumsum(move, axis=1)
    expected = [reference_distances(position[:, t], heading[:, t]) for t in range(length)]
    collided = (np.stack(expected) < 20).any(axis=-1)
    running = np.cumsum(collided, axis=0) - collided == 0  # up to the first collision
    assert running[-1].sum() < count / 2 and collided.any(axis=0).sum() > count / 2
    np.testing.assert_allclose(states.heading.T, heading, atol=1e-4)
    np.testing.assert_allclose(np.moveaxis(states.position, 1, 0), position, atol=2e-2)
    error = np.abs(np.asarray(step.next_obs) - np.stack(expected) / 150)[running]
    assert np.quantile(error, 0.999) < 1e-3
    np.testing.assert_array_equal(step.terminated[running], collided[running])
    np.testing.assert_array_equal(step.reward[running], -1.0 * collided[running])
    np.testing.assert_allclose(obs[0] * 150, [70, 70 * 2**0.5, 150, 50 * 2**0.5, 50], rtol=1e-6)


def test_driving_straight_ahead_collides_after_57_steps():
    """From y = 300, the distance to the border falls below 20 with the 57th step of 5."""
    step = rollout(envs.make("rljax/Car2D"), KEY, jnp.zeros((60, 1)))[2]
    assert np.flatnonzero(step.terminated).tolist() == [56]
    np.testing.assert_array_equal(step.reward, -1.0 * step.terminated)
    np.testing.assert_allclose(step.next_obs[56, 2], 15 / 150, atol=1e-6)
    np.testing.assert_allclose(step.obs[56, 2], 1)


def laps(position):
    """Returns how often positions `[T, 2]` go around the obstacle, positive counterclockwise."""
    angle = np.unwrap(np.arctan2(*(np.asarray(position).T[::-1] - 250)))
    return (angle[-1] - angle[0]) / (2 * np.pi)


def test_steering_between_the_walls_drives_600_steps_without_a_collision():
    """Steers towards the side whose diagonal sensor measures the larger distance."""
    env = envs.make("rljax/Car2D")
    state, obs = env.reset(KEY)

    def control(carry, _):
        state, obs = carry
        action = 2 * (obs[3] - obs[1])
        state, step = env.step(state, action[None], jnp.zeros(0))
        return (state, step.obs), (innermost(state).position, step)

    position, step = jax.jit(lambda x: jax.lax.scan(control, x, None, length=600)[1])((state, obs))
    assert not step.terminated.any() and (step.reward == 0).all()
    assert np.flatnonzero(step.truncated).tolist() == [599]
    assert -3 < laps(position[:-1]) < -1.5  # clockwise


def test_the_car_passes_the_checks():
    env = envs.make("rljax/Car2D")
    envs.validate(env)
    spec = env.spec
    assert (spec.env_id, spec.max_episode_steps, spec.obs_shape) == ("rljax/Car2D", 600, (5,))
    assert (spec.action_shape, spec.action_low, spec.action_high) == ((1,), -1, 1)
    assert env.sample_noise(KEY, 7).shape == (7, 0)
    step = rollout(envs.make("rljax/Car2D", max_episode_steps=3), KEY, jnp.zeros((7, 1)))[2]
    assert np.flatnonzero(step.truncated).tolist() == [2, 5]
    with pytest.raises(ValueError, match="rljax/Car2D has no option `speed`"):
        envs.make("rljax/Car2D", speed=3)


def test_render():
    env = envs.make("rljax/Car2D")
    state, _ = env.reset(KEY)
    assert env.render(state) == "position (450, 300), heading 270 degrees, nearest wall 50"
