"""Actor-critic networks: a policy and a value from one observation.

An actor-critic is a flax linen module that maps `obs[..., *obs_shape]` to `(policy, value[...])`.
The policy is a `distrax.Categorical`, a `distrax.MultivariateNormalDiag` or a diagonal Gaussian
made by `policies.normal`. Any such module can be given to an agent as `network=`.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks.encoder import Encoder, Inputs, example_obs, inputs_of
from rljax.networks.layers import MLP, orthogonal
from rljax.networks.nnx_modules import nnx_cure
from rljax.networks.policies import MultiCategorical, normal, parameters
from rljax.ops.observations import choices, num_logits, split_actions
from rljax.types import EnvSpec

STDS = ("free", "softplus", "variance")


class ActorCritic(nn.Module):
    """Policy and value: `[..., *obs_shape] -> (policy over actions, value[...])`.

    Discrete actions have a Categorical policy, several discrete actions at once a
    `MultiCategorical` one. Continuous actions have a diagonal Gaussian policy in units of half the
    action range (see `to_box`).

    Attributes:
      num_actions: number of discrete actions, or a tuple of them; 0 for continuous actions.
      action_shape: shape of a continuous action.
      hidden_sizes: units of each hidden layer.
      activation: a name in `ACTIVATIONS`.
      inputs: the observations; images go through a convolution before the hidden layers.
      std: standard deviation of the Gaussian: a "free" parameter that does not depend on the
        observation, the "softplus" of a linear layer, or the square root of that softplus, which
        is then the "variance" (as in A3C).
      share: policy and value share convolution and hidden layers if there are images; without
        images each has its own hidden layers.
    """

    num_actions: Any = 0
    action_shape: Sequence[int] = ()
    hidden_sizes: Sequence[int] = (64, 64)
    activation: str = "tanh"
    inputs: Inputs = Inputs()
    std: str = "free"
    share: bool = True

    @nn.compact
    def __call__(self, obs):
        import distrax  # imported here because it takes two seconds

        share = self.share and self.inputs.has_images
        features = Encoder(self.inputs, self.activation, name="encoder")(obs)
        actor = MLP(self.hidden_sizes, self.activation, name="actor")(features)
        if share:
            critic = actor
        else:
            if self.inputs.has_images:
                features = Encoder(self.inputs, self.activation, name="critic_encoder")(obs)
            critic = MLP(self.hidden_sizes, self.activation, name="critic")(features)
        value = nn.Dense(1, kernel_init=orthogonal(1.0), name="value")(critic)
        if self.num_actions:
            size = num_logits(self.num_actions)
            logits = nn.Dense(size, kernel_init=orthogonal(0.01), name="logits")(actor)
            policy: Any = distrax.Categorical(logits=logits)
            if isinstance(self.num_actions, tuple):
                policy = MultiCategorical(split_actions(logits, self.num_actions))
            return policy, jnp.squeeze(value, -1)
        size = math.prod(self.action_shape)
        mean = nn.Dense(size, kernel_init=orthogonal(0.01), name="mean")(actor)
        if self.std == "free":
            log_std = self.param("log_std", nn.initializers.zeros, (size,))
            std = jnp.broadcast_to(jnp.exp(log_std), mean.shape)
        else:
            dense = nn.Dense(size, kernel_init=orthogonal(0.01), name="std")
            std = nn.softplus(dense(actor)) + 1e-4  # keeps the density finite
            std = jnp.sqrt(std) if self.std == "variance" else std
        return normal(mean, std), jnp.squeeze(value, -1)


def actor_critic_network(
    spec: EnvSpec, hidden_sizes: Sequence[int] = (64, 64), activation: str = "tanh",
    torso: str = "auto", std: str = "free", share: bool = True,
) -> ActorCritic:  # fmt: skip
    """Returns an actor-critic for the observations and actions of an environment.

    Args:
      spec: description of the environment.
      hidden_sizes, activation, std, share: as in `ActorCritic`.
      torso: "mlp", "conv", or "auto", which uses a convolution for images.

    Raises:
      ValueError: "conv" for observations without an image `[H, W, C]` of at least 3 x 3.

    Example:
      >>> network = actor_critic_network(EnvSpec(obs_shape=(4,), num_actions=2), (8,))
      >>> params = network.init(jax.random.key(0), jnp.zeros((1, 4)))
      >>> policy, value = network.apply(params, jnp.zeros((5, 4)))
      >>> policy.probs.shape, value.shape
      ((5, 2), (5,))
    """
    return ActorCritic(
        spec.num_actions, spec.action_shape, tuple(hidden_sizes), activation,
        inputs_of(spec, torso), std, share,
    )  # fmt: skip


def memory_size_of(network: Any) -> int:
    """Returns the size of the memory of a network, 0 for a memoryless network.

    A network is recurrent if it has an attribute `memory_size` above 0; see `networks.recurrent`.
    """
    return getattr(network, "memory_size", 0)


def check_actor_critic(network: Any, spec: EnvSpec) -> None:
    """Checks that `network` is an actor-critic for an environment, by tracing it once.

    Args:
      network: flax linen module, `obs[..., *obs_shape] -> (policy, value[...])`; a recurrent one
        takes a `RecurrentObs`.
      spec: description of the environment.

    Raises:
      ValueError: it is not a flax linen module, or its outputs have the wrong form.
    """
    if not isinstance(network, nn.Module):
        is_class = isinstance(network, type)
        given = f"the class {network.__name__}" if is_class else f"a {type(network).__name__}"
        raise ValueError(
            f"`network` is {given}, but it must be an instance of a flax.linen.Module that maps "
            f"observations to (policy, value){nnx_cure(network)}."
        )
    batch_shape = (2, 3)  # [T, B]: networks are applied to batches and to whole trajectories
    obs = example_obs(spec, batch_shape, memory_size_of(network))
    problem = None

    def check(key):
        nonlocal problem
        problem = _problem_of(network.init_with_output(key, obs)[0], spec, batch_shape)

    jax.eval_shape(check, jax.random.key(0))
    if problem:
        raise ValueError(problem)


def _problem_of(outputs: Any, spec: EnvSpec, batch_shape: tuple[int, ...]) -> str | None:
    """Returns what is wrong with the outputs of an actor-critic, or None."""
    import distrax

    if not isinstance(outputs, tuple) or len(outputs) != 2:
        return (
            f"`network` returns {_described(outputs)}, but it must return a pair (policy, value), "
            "such as (distrax.Categorical(logits=logits), value). A network that returns only "
            "action values belongs to an agent such as dqn."
        )
    policy, value = outputs
    if not isinstance(policy, distrax.Distribution | MultiCategorical):
        return (
            f"`network` returns {_described(policy)} as the policy, but it must return a distrax "
            "distribution: for logits, distrax.Categorical(logits=logits)."
        )
    try:
        arrays = parameters(policy)
    except ValueError as error:
        return str(error)
    return _problem_of_policy(policy, arrays, spec, batch_shape) or _problem_of_value(
        value, batch_shape
    )


def _problem_of_policy(policy: Any, arrays: Any, spec: EnvSpec, batch_shape: Any) -> str | None:
    """Returns what is wrong with a policy, whose `parameters` are `arrays`, or None."""
    if isinstance(spec.num_actions, tuple):
        kind, wanted, cure = "several discrete", "multi", "rljax.networks.MultiCategorical(logits)"
    elif spec.num_actions:
        kind, wanted, cure = "discrete", "categorical", "distrax.Categorical"
    else:
        kind, wanted, cure = "continuous", "normal", "rljax.networks.normal(mean, std)"
    is_multi = isinstance(policy, MultiCategorical)
    if ("multi" if is_multi else "categorical" if len(arrays) == 1 else "normal") != wanted:
        return (
            f"`network` returns the policy {type(policy).__name__}, but {spec.env_id} has {kind} "
            f"actions: return a {cure}."
        )
    sizes = choices(spec.num_actions) if spec.num_actions else (math.prod(spec.action_shape),)
    given = [x.shape for x in jax.tree.leaves(arrays[0])]
    needed = [(*batch_shape, size) for size in sizes]
    if given == needed:
        return None
    given, needed, number = (
        (given, needed, sizes) if wanted == "multi" else (given[0], needed[0], sizes[0])
    )
    return (
        f"`network` returns a policy with parameters of shape {given} for observations of batch "
        f"shape {batch_shape}, but the shape must be {needed}: {spec.env_id} has {number} "
        f"{kind} actions."
    )


def _problem_of_value(value: Any, batch_shape: Any) -> str | None:
    if jnp.shape(value) != batch_shape:
        last_axis = jnp.shape(value) == (*batch_shape, 1)
        cure = "squeeze its last axis, value[..., 0]" if last_axis else "keep the batch axes"
        return (
            f"`network` returns a value of shape {jnp.shape(value)} for observations of batch "
            f"shape {batch_shape}, but the value must have shape {batch_shape}: {cure}."
        )
    return None


def _described(output: Any) -> str:
    if hasattr(output, "shape"):
        return f"an array of shape {output.shape}"
    if isinstance(output, tuple):
        return f"a tuple of {len(output)}"
    return f"a {type(output).__name__}"
