"""Deep Q-networks with replay and a target network, https://doi.org/10.1038/nature14236.

Double DQN (https://arxiv.org/abs/1509.06461) is another `bootstrap`, dueling
(https://arxiv.org/abs/1511.06581) another `network`, prioritized replay another `replay`. Differs
from the paper: Adam for RMSProp; target updates are counted in environment steps. The defaults
differ too: 3-step returns, normalized observations, an annealed learning rate and repeated
exploratory actions, without which some seeds do not learn (docs/robustness.md).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from rljax.agents import off_policy, replay_schedule
from rljax.agents.acting import EXPLORATION_REPEAT_HELP, check_discrete, epsilon_greedy
from rljax.agents.off_policy import Learned
from rljax.agents.replay_schedule import ReplayConfig
from rljax.config import config, option
from rljax.networks import action_values
from rljax.networks.action_values import check_q_network
from rljax.networks.encoder import example_obs
from rljax.networks.layers import ACTIVATIONS
from rljax.ops import optimizers, random, td
from rljax.ops.diagnostics import q_value_metrics, spread_of_values
from rljax.ops.observations import legal_values
from rljax.types import Agent, Array, EnvSpec, PyTree, Replay, SampleNoise, Transition, identity


@config
class QConfig(ReplayConfig):
    """Options of every algorithm of the DQN family."""

    total_timesteps: int = option(200_000, "environment steps of the whole run", low=1)
    buffer_size: int = option(200_000, "capacity of the replay buffer, in transitions", low=1)
    learning_rate: float = option(1e-3, "learning rate of the optimizer", above=0)
    anneal_lr: bool = option(True, "anneal the learning rate linearly to 0")
    max_grad_norm: float = option(10.0, "maximum global norm of the gradient", above=0)
    eps_start: float = option(1.0, "initial epsilon of the epsilon-greedy policy", low=0, high=1)
    eps_end: float = option(0.01, "final epsilon of the epsilon-greedy policy", low=0, high=1)
    exploration_fraction: float = option(
        0.2, "fraction of training over which epsilon is annealed linearly", low=0, high=1
    )
    exploration_repeat: int = option(8, EXPLORATION_REPEAT_HELP, low=1)
    double: bool = option(False, "double DQN: select the next action with the online network")
    dueling: bool = option(False, "dueling network: separate value and advantage streams")
    n_step: int = option(3, "number of rewards in an n-step return", low=1)
    noisy: bool = option(False, "NoisyNet exploration instead of epsilon-greedy")
    normalize_obs: bool = option(True, "normalize observations by running mean and variance")
    activation: str = option("relu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))


@config
class DQNConfig(QConfig):
    loss: str = option("squared", "loss of the TD error", choices=tuple(td.LOSSES))


def packed(learned: Learned) -> tuple[Learned, Callable[[PyTree], PyTree]]:
    """Returns parameters and target parameters as `optimizers.packed` does, and the inverse."""
    params, unpack = optimizers.packed(learned.params)
    target_params, _ = optimizers.packed(learned.target_params)
    return Learned(params, target_params, learned.opt_state), unpack


def unpacked(learned: Learned, unpack: Callable[[PyTree], PyTree]) -> Learned:
    """The inverse of `packed`."""
    return Learned(unpack(learned.params), unpack(learned.target_params), learned.opt_state)


class QLoss(NamedTuple):
    """The result of an objective, `[N]` each."""

    loss: Array
    td_error: Array  # for the priorities of replay
    q_value: Array  # Q(s, a) of the sampled actions


QFunction = Callable[[PyTree], Array]  # obs[N, *obs_shape] -> outputs[N, A, *]


class ActionValues(Protocol):
    def __call__(self, outputs: Array, /) -> Array:
        """Returns action values, `[..., A, *] -> [..., A]`."""
        ...


class QObjective(Protocol):
    def __call__(
        self, online: QFunction, target: QFunction, transitions: Transition, discount: Array, /
    ) -> QLoss:
        """Returns the loss of each transition `[N]`, not weighted.

        Args:
          online: the network with the parameters that are learned.
          target: the network with the target parameters.
          transitions: a batch from replay, `[N, ...]`.
          discount: discount of the bootstrap value, `[N]`.
        """
        ...


class Objective(NamedTuple):
    """The interpretation of a Q-network's outputs, and the loss that they are trained with.

    Attributes:
      action_values: `outputs[..., A, *] -> [..., A]`.
      loss: `(online, target, transitions, discount) -> QLoss`.
      num_outputs: K, the numbers that the network outputs for each action; 0 for one number,
        without an axis.
    """

    action_values: ActionValues
    loss: QObjective
    num_outputs: int = 0


def td_objective(
    bootstrap: Callable[[Array, Array], Array], loss: Callable[[Array], Array],
    spec: EnvSpec,
) -> Objective:  # fmt: skip
    """The TD error to `r + gamma Q_target(s', a')`, where `bootstrap` selects a legal a'."""
    legal = partial(legal_values, spec)

    def q_loss(online, target, transitions, discount):
        q = td.chosen(online(transitions.obs), transitions.action)
        next_q = target(transitions.next_obs)
        next_action = bootstrap(
            legal(transitions.next_obs, online(transitions.next_obs)),
            legal(transitions.next_obs, next_q),
        )
        td_target = td.td_target(
            transitions.reward, transitions.terminated, discount, td.chosen(next_q, next_action)
        )
        td_error = jax.lax.stop_gradient(td_target) - q
        return QLoss(loss(td_error), td_error, q)

    return Objective(identity, q_loss)


def dqn(
    config: Any, spec: EnvSpec, *, network: Any = None,
    optimizer: optax.GradientTransformation | None = None, replay: Replay | None = None,
    bootstrap: Callable[[Array, Array], Array] | None = None,
    loss: Callable[[Array], Array] | None = None, objective: Objective | None = None,
    average: Callable[[PyTree], PyTree] = identity,
) -> Agent:  # fmt: skip
    """Makes a DQN agent.

    Args:
      config: a `DQNConfig`, or another `QConfig` with an `objective`; floats may be tracers.
      spec: description of the environment.
      network: flax module, `obs[..., *obs_shape] -> outputs[..., A, *]`.
      optimizer: default Adam with clipped gradients.
      replay: for example `n_step(prioritized(...), ...)` of `rljax.replay`.
      bootstrap: `(online_q[N, A], target_q[N, A]) -> next action[N]`, see `ops.td`.
      loss: `td_error[N] -> loss[N]`.
      objective: replaces `bootstrap` and `loss` for networks whose outputs are not values.
      average: mean over workers, `partial(lax.pmean, axis_name=...)`.

    Raises:
      ValueError: the actions are continuous, the network does not fit the environment, `replay` is
        not a `Replay`, or the replay buffer needs more memory than the machine has.

    Example:
      >>> import rljax
      >>> env = rljax.build("CartPole-v1", num_envs=4)
      >>> agent = dqn(DQNConfig(double=True), env.spec)
      >>> learner = rljax.make_learner(agent, env, num_steps=1)
    """
    check_discrete(spec)
    objective = objective or td_objective(
        bootstrap or td.action_selection(config.double), loss or td.LOSSES[config.loss], spec
    )
    if network is None:
        network = q_network(config, spec, objective.num_outputs)
    else:
        check_q_network(network, spec, objective.num_outputs)
    rate_metric = optimizers.learning_rate_metric(None if optimizer else learning_rate(config))
    if optimizer is None:
        optimizer = default_optimizer(config)
    optimizers.check_optimizer(optimizer)
    loop = off_policy.off_policy_loop(config, spec, replay=replay, average=average)

    network_noise = action_values.noise_sampler(network, spec) if config.noisy else None

    def q_function(params, noise):
        variables = params if noise is None else {**params, "noise": noise}
        return lambda obs: network.apply(variables, obs)

    def q_values(state, obs, noise):
        q = q_function(state.params, noise)
        return legal_values(spec, obs, objective.action_values(q(loop.standardize(state, obs))))

    def init(key):
        params = network.init(key, example_obs(spec))
        target_params = jax.tree.map(jnp.copy, params)
        opt_state = optimizer.init(optimizers.packed(params)[0])
        return loop.init(Learned(params, target_params, opt_state))

    learning_noise = network_noise and noise_pairs(network_noise)

    def update(state, trajectory, key):
        """Algorithm 1 of Mnih et al. (2015), for all environments at once."""
        start, unpack = packed(state.learned)

        def gradient_step(learned, batch):
            online_noise, target_noise = (None, None) if batch.noise is None else batch.noise
            target = q_function(unpack(learned.target_params), target_noise)

            def weighted_loss(params):
                online = q_function(unpack(params), online_noise)
                loss, td_error, q = objective.loss(
                    online, target, batch.transitions, batch.discount
                )
                metrics = {"losses/td_loss": loss.mean(), **q_value_metrics(q)}
                return (batch.weight * loss).mean(), (td_error, metrics)

            grads, (td_error, metrics) = jax.grad(weighted_loss, has_aux=True)(learned.params)
            grads = average(grads)
            updates, opt_state = optimizer.update(grads, learned.opt_state, learned.params)
            metrics |= {"losses/grad_norm": optimizers.gradient_norm(grads)}
            metrics |= rate_metric(opt_state)
            params = optax.apply_updates(learned.params, updates)
            target_params = off_policy.update_target(
                learned.target_params, params, config.tau, batch.target_is_due
            )
            return Learned(params, target_params, opt_state), td_error, metrics

        state = state._replace(learned=start)
        state, metrics = loop.learn(state, trajectory, key, gradient_step, learning_noise)
        metrics |= average(spread_of_values(trajectory.extras))
        return state._replace(learned=unpacked(state.learned, unpack)), metrics

    acting = epsilon_greedy(config, spec, q_values, network_noise)
    return Agent(
        init, acting.act, acting.greedy, update, acting.sample_noise, config.exploration_repeat
    )


def noise_pairs(sample: SampleNoise) -> SampleNoise:
    """Returns `(key, n) -> (noise of the online network, noise of the target network)`."""

    def sample_pairs(key, num):
        online_key, target_key = random.split(key)
        return sample(online_key, num), sample(target_key, num)

    return sample_pairs


def q_network(config: QConfig, spec: EnvSpec, num_outputs: int) -> action_values.QNetwork:
    """Returns the Q-network that a config describes; `num_outputs` as in `Objective`."""
    return action_values.q_network(
        spec, config.hidden_sizes, config.activation, num_outputs=num_outputs,
        dueling=config.dueling, noisy=config.noisy,
    )  # fmt: skip


def learning_rate(config: QConfig) -> Any:
    """Returns the learning rate that a config describes: a number, or an annealing schedule."""
    rate = config.learning_rate
    return replay_schedule.annealed(config, rate) if config.anneal_lr else rate


def default_optimizer(config: QConfig) -> optax.GradientTransformation:
    """Adam with clipped gradients."""
    return optimizers.clipped(optax.adam(learning_rate(config)), config.max_grad_norm)
