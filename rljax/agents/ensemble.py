"""A learned model of the environment: an ensemble of networks that predict distributions.

Chua et al. 2018 (PETS), https://arxiv.org/abs/1805.12114, and Janner et al. 2019 (MBPO),
https://arxiv.org/abs/1906.08253. Each network predicts the change of the observation and the
reward as a normal distribution (aleatoric uncertainty); the networks disagree where there are few
data (epistemic uncertainty). Differs from MBPO: targets are standardized too, a network samples
its training data with replacement at every gradient step, and training stops by the held-out
likelihood instead of the squared error, so that the variances are trained as far as the means.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from rljax.networks.continuous import check_network
from rljax.networks.ensemble import (
    GaussianModel,
    Prediction,
    Scale,
    negative_log_likelihood,
    scale_of,
    standardize,
)
from rljax.networks.policies import from_box
from rljax.ops import optimizers, random
from rljax.ops.observations import choices, obs_structs
from rljax.types import Array, EnvSpec, Key, PyTree, identity

BOUND_PENALTY = 0.01  # of the distance between the learned bounds of the variance (Chua et al.)
IMPROVEMENT = 0.01  # of the held-out loss; smaller ones do not count
MAX_HELD_OUT = 1_000  # transitions, at most


class EnsembleState(NamedTuple):
    """The state of a learned model.

    Attributes:
      params: parameters of the K networks, `[K, ...]`.
      opt_state: state of their optimizer.
      inputs, targets: scales of the inputs `[D]` and of the predicted numbers `[O]`.
      elites: indices of the networks with the smallest held-out losses, `[E]` int32.
    """

    params: PyTree
    opt_state: PyTree
    inputs: Scale
    targets: Scale
    elites: Array


class Members(NamedTuple):
    """Networks that predict: their parameters `[E, ...]` and the scales of inputs and targets."""

    params: PyTree
    inputs: Scale
    targets: Scale


class Ensemble(NamedTuple):
    """A learned model as pure functions; see `make_ensemble`.

    Attributes:
      init: `(key) -> EnsembleState`.
      fit: `(state, transitions[C], size, key) -> (state, metrics)`, trains the networks on the
        first `size` transitions until the held-out loss stops improving. The metrics are those of
        `model_schedule.METRICS`.
      elites: `(state) -> Members`, the networks that predict.
      predict: `(members, obs[E, M, *obs_shape], action[E, M, ...]) -> Prediction[E, M, ...]` of
        the change of the observation and the reward, in their units. Row e is predicted by network
        e.
      step: `(members, obs[E, M, ...], action[E, M, ...], normal[E, M, O]) -> (next_obs, reward,
        terminated)`, a sample of the prediction.
      num_outputs: O, the numbers of an observation and the reward.
    """

    init: Callable[[Key], EnsembleState]
    fit: Callable[..., tuple[EnsembleState, dict[str, Array]]]
    elites: Callable[[EnsembleState], Members]
    predict: Callable[..., Prediction]
    step: Callable[..., tuple[Array, Array, Array]]
    num_outputs: int


def make_ensemble(
    config: Any, spec: EnvSpec, *, model: nn.Module | None = None,
    termination: Callable[..., Array] | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Ensemble:  # fmt: skip
    """Makes the model of an environment with observations of numbers.

    The loss is the negative log-likelihood (eq. 1 of Chua et al.), and the cross-entropy of the
    termination where it is learned. `truncated` is no part of the model.

    Args:
      config: an `EnsembleConfig` of `model_schedule`; floats may be tracers.
      spec: description of the environment.
      model: flax module, `inputs[..., D] -> Prediction` of O numbers; default `GaussianModel`.
      termination: `(obs, action, next_obs) -> bool [...]`, which states end an episode. By default
        the rule of the environment, `spec.termination`, or if there is none, learned.
      average: mean over workers, which share the networks.

    Raises:
      ValueError: observations are no single array of floats, there are more elites than networks,
        or the module does not fit.
    """
    check_observations(spec)
    if config.num_elites > config.num_models:
        raise ValueError(
            f"`num_elites` is {config.num_elites}, but the ensemble has `num_models` = "
            f"{config.num_models} networks: lower it."
        )
    termination = termination or spec.termination
    obs_size = math.prod(spec.obs_shape)
    sizes = choices(spec.num_actions) if spec.num_actions else (math.prod(spec.action_shape),)
    num_inputs, num_outputs = obs_size + sum(sizes), obs_size + 1
    if model is None:
        hidden = config.model_hidden_sizes, config.model_activation, config.learned_bounds
        model = GaussianModel(num_outputs, *hidden)
    shapes = [(2, num_outputs), (2, num_outputs), (2,)]
    network = check_network("model", model, (jnp.zeros((2, num_inputs)),), shapes)
    optimizer = optax.adamw(config.model_learning_rate, weight_decay=config.model_weight_decay)
    apply: Any = jax.vmap(network.apply)  # one network a row: [K, ...], [K, M, D] -> [K, M, ...]

    def init(key):
        keys = jax.random.split(key, config.num_models)
        params = jax.vmap(network.init, (0, None))(keys, jnp.zeros((1, num_inputs)))
        inputs, targets = (Scale(jnp.zeros(n), jnp.ones(n)) for n in (num_inputs, num_outputs))
        elites = jnp.arange(config.num_elites, dtype=jnp.int32)
        return EnsembleState(params, optimizer.init(params), inputs, targets, elites)

    def as_inputs(obs, action):
        """Returns the numbers that predict: observations and actions, `[..., D]`."""
        obs = obs.reshape(*obs.shape[: obs.ndim - len(spec.obs_shape)], obs_size)
        return jnp.concatenate([obs, _as_numbers(spec, action)], axis=-1)

    def as_targets(transitions):
        """Returns the numbers to predict: the change of the observation and the reward."""
        change = (transitions.next_obs - transitions.obs).reshape(-1, obs_size)
        return jnp.concatenate([change, transitions.reward[:, None]], axis=-1)

    def losses(prediction, targets, terminated):
        """Returns the loss of each network for each transition, `[K, N]`."""
        loss = negative_log_likelihood(prediction, targets).mean(axis=-1)
        if termination is None:
            loss += optax.sigmoid_binary_cross_entropy(prediction.termination, terminated)
        return loss

    def total_loss(params, inputs, targets, terminated):
        """The sum over networks of their mean losses, on batches `[K, N, ...]`."""
        loss = losses(apply(params, inputs), targets, terminated)
        return loss.mean(axis=1).sum() + _bound_penalty(params)

    def fit(state, transitions, size, key):
        order_key, key = random.split(key)
        order = _random_order(order_key, transitions.reward.shape[0], size)
        num_held_out = jnp.clip(size // 5, 1, MAX_HELD_OUT)
        num_train = jnp.maximum(size - num_held_out, 1)
        held_out = order[:MAX_HELD_OUT]
        is_held_out = (jnp.arange(held_out.size) < num_held_out).astype(jnp.float32)

        inputs = as_inputs(transitions.obs, transitions.action)
        targets, terminated = as_targets(transitions), transitions.terminated.astype(jnp.float32)
        is_filled = jnp.arange(transitions.reward.size) < size
        state = state._replace(
            inputs=scale_of(inputs, is_filled, average),
            targets=scale_of(targets, is_filled, average),
        )
        data = standardize(inputs, state.inputs), standardize(targets, state.targets), terminated

        def evaluate(params):
            """Returns the loss and the mean squared error on the held-out data, `[K]` each."""
            rows = jax.tree.map(lambda x: x[held_out], data)
            inputs, targets, terminated = _copies(rows, config.num_models)
            prediction = apply(params, inputs)
            error = jnp.square(prediction.mean - targets).mean(axis=-1)
            values = losses(prediction, targets, terminated), error
            return average([x @ is_held_out / is_held_out.sum() for x in values])

        def gradient_step(key, carry):
            params, opt_state = carry
            shape = config.num_models, config.model_batch_size
            place = random.bits(key, shape) % num_train.astype(jnp.uint32)
            rows = order[num_held_out + place.astype(jnp.int32)]
            grads = jax.grad(total_loss)(params, *jax.tree.map(lambda x: x[rows], data))
            return optimizers.apply_gradients(optimizer, average(grads), opt_state, params)

        num_steps = -(-num_train // config.model_batch_size)

        def epoch(carry):
            number, waited, params, opt_state, best, lowest = carry
            epoch_key = jax.random.fold_in(key, number)
            params, opt_state = jax.lax.fori_loop(
                0, num_steps,
                lambda i, carry: gradient_step(jax.random.fold_in(epoch_key, i), carry),
                (params, opt_state),
            )  # fmt: skip
            loss, _ = evaluate(params)
            is_better = loss < lowest - IMPROVEMENT
            best = jax.tree.map(lambda old, new: _where(is_better, new, old), best, params)
            waited = jnp.where(is_better.any(), 0, waited + 1)
            lowest = jnp.where(is_better, loss, lowest)
            return number + 1, waited, params, opt_state, best, lowest

        def is_improving(carry):
            number, waited, *_ = carry
            return (number < config.model_max_epochs) & (waited < config.model_patience)

        start = jnp.int32(0), jnp.int32(0), state.params, state.opt_state
        carry = (*start, state.params, evaluate(state.params)[0])
        num_epochs, _, _, opt_state, params, lowest = jax.lax.while_loop(is_improving, epoch, carry)
        elites = jnp.argsort(lowest)[: config.num_elites].astype(jnp.int32)
        loss, error = evaluate(params)
        metrics = {
            "losses/model_loss": loss[elites].mean(),
            "losses/model_error": error[elites].mean(),
            "charts/model_epochs": num_epochs.astype(jnp.float32),
        }
        return state._replace(params=params, opt_state=opt_state, elites=elites), metrics

    def elites(state):
        params = jax.tree.map(lambda x: x[state.elites], state.params)
        return Members(params, state.inputs, state.targets)

    def predict(members, obs, action):
        inputs = standardize(as_inputs(obs, action), members.inputs)
        mean, log_variance, termination = apply(members.params, inputs)
        scale = jax.tree.map(lambda x: jnp.broadcast_to(x, mean.shape), members.targets)
        log_variance = log_variance + 2.0 * jnp.log(scale.std)
        return Prediction(scale.mean + scale.std * mean, log_variance, termination)

    def step(members, obs, action, normal):
        prediction = predict(members, obs, action)
        std = config.model_noise * jnp.exp(0.5 * prediction.log_variance)
        sample = prediction.mean + std * normal
        next_obs = obs + sample[..., :-1].reshape(obs.shape)
        if termination is None:
            terminated = prediction.termination > 0.0
        else:
            terminated = termination(obs, action, next_obs)
        return next_obs, sample[..., -1], terminated

    return Ensemble(init, fit, elites, predict, step, num_outputs)


def check_observations(spec: EnvSpec) -> None:
    """Checks that a model of numbers can predict the observations of an environment.

    Raises:
      ValueError: observations are no single array of floats, or have an action mask.
    """
    leaves = jax.tree.leaves(obs_structs(spec))
    is_number = len(leaves) == 1 and jnp.issubdtype(leaves[0].dtype, jnp.floating)
    if not is_number or spec.num_states or spec.action_mask:
        kinds = ", ".join(f"{x.dtype}{list(x.shape)}" for x in leaves)
        raise ValueError(
            f"the model predicts observations that are one array of floats, but those of "
            f"{spec.env_id} are {kinds}: use muzero, whose model predicts hidden states instead, "
            "or dyna_q for numbered states."
        )


def _as_numbers(spec: EnvSpec, action: Array) -> Array:
    """Returns actions as inputs of a network: one-hot, or in [-1, 1]."""
    if not spec.num_actions:
        return from_box(spec, action)
    parts = [action] if not isinstance(spec.num_actions, tuple) else jnp.unstack(action, axis=-1)
    sizes = choices(spec.num_actions)
    hot = [jax.nn.one_hot(part, size) for part, size in zip(parts, sizes, strict=True)]
    return jnp.concatenate(hot, axis=-1)


def _random_order(key: Key, capacity: int, size: Array) -> Array:
    """Returns the slots in a random order, the first `size` slots before the empty ones."""
    place = random.uniform(key, (capacity,)) + (jnp.arange(capacity) >= size)
    return jnp.argsort(place).astype(jnp.int32)


def _copies(tree: PyTree, num: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), tree)


def _where(condition: Array, x: Array, y: Array) -> Array:
    """`jnp.where` of `condition[K]` over arrays `[K, ...]`."""
    return jnp.where(condition.reshape(-1, *(1,) * (x.ndim - 1)), x, y)


def _bound_penalty(params: PyTree) -> Array:
    """Returns the penalty of the distance between learned bounds of the variance."""
    params = params["params"]
    if "max_log_variance" not in params:
        return jnp.float32(0)
    return BOUND_PENALTY * (params["max_log_variance"] - params["min_log_variance"]).sum()
