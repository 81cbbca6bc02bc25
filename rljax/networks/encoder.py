"""The encoder of observations: any tree of arrays becomes one vector."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks.convolutions import MinAtarConvolution, NatureConvolution, convolution_of
from rljax.ops.observations import obs_structs, split_mask, with_field
from rljax.types import EnvSpec, PyTree, RecurrentObs


@dataclasses.dataclass(frozen=True)
class Inputs:
    """How a network takes the observations of an environment; see `inputs_of`.

    Attributes:
      ranks: number of axes of each array of an observation without its mask, in the order of
        `jax.tree.leaves`.
      convolutions: "minatar" or "nature" for each array that is an image, "" for the others.
      num_states: number of states if observations are state indices, else 0.
      action_mask: field of the observation with the legal actions, which is no input; "" without.
    """

    ranks: tuple[int, ...] = (1,)
    convolutions: tuple[str, ...] = ("",)
    num_states: int = 0
    action_mask: str = ""

    @property
    def has_images(self) -> bool:
        """Whether an array of the observation goes through a convolution."""
        return any(self.convolutions)


def inputs_of(spec: EnvSpec, torso: str = "auto") -> Inputs:
    """Returns how a network takes the observations of an environment.

    Args:
      spec: description of the environment.
      torso: "auto" and "conv" apply a convolution to images, arrays `[H, W, C]` of at least 3 x 3;
        images of at least 36 x 36 get that of Mnih et al. (2015), smaller ones that of MinAtar.
        "mlp" flattens images.

    Raises:
      ValueError: "conv" for observations without an image.

    Example:
      >>> inputs_of(EnvSpec(obs_shape=(10, 10, 4))).convolutions
      ('minatar',)
      >>> inputs_of(EnvSpec({"camera": (84, 84, 4), "speed": ()}, 3)).convolutions
      ('nature', '')
    """
    leaves = jax.tree.leaves(split_mask(spec, obs_structs(spec))[0])
    convolutions = [convolution_of(x.shape) for x in leaves]
    if torso == "conv" and not any(convolutions):
        raise ValueError(
            f"`torso` is 'conv', but observations of {spec.env_id} have shape {spec.obs_shape}: "
            "set `torso` to 'mlp' unless they are images [H, W, C] of at least 3 x 3."
        )
    ranks = tuple(len(x.shape) for x in leaves)
    convolutions = [kind if torso != "mlp" else "" for kind in convolutions]
    return Inputs(ranks, tuple(convolutions), spec.num_states, spec.action_mask)


class Encoder(nn.Module):
    """Observations as vectors, `[..., *obs_shape] -> [..., F]`.

    Images go through a convolution, state indices become one-hot vectors, other arrays are
    flattened; the results are concatenated. Without images it has no parameters.
    """

    inputs: Inputs
    activation: str = "relu"

    @nn.compact
    def __call__(self, obs):
        if self.inputs.action_mask:
            obs = with_field(obs, self.inputs.action_mask, None)
        parts = []
        leaves = zip(jax.tree.leaves(obs), self.inputs.ranks, self.inputs.convolutions, strict=True)
        for i, (x, rank, convolution) in enumerate(leaves):
            if self.inputs.num_states:
                x = jax.nn.one_hot(x.astype(jnp.int32), self.inputs.num_states)
            elif convolution == "nature":
                x = NatureConvolution(self.activation, name=f"nature_{i}")(x)
            elif convolution:
                x = MinAtarConvolution(activation=self.activation, name=f"minatar_{i}")(x)
            else:
                x = x.reshape(*x.shape[: x.ndim - rank], -1).astype(jnp.float32)
            parts.append(x)
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def example_obs(spec: EnvSpec, batch_shape: tuple[int, ...] = (1,), memory_size: int = 0) -> PyTree:
    """Returns observations of zeros, `[*batch_shape, *obs_shape]`, to initialize networks with.

    Args:
      spec: description of the environment.
      batch_shape: leading axes.
      memory_size: size of the memory of a recurrent network, which takes a `RecurrentObs`.

    Example:
      >>> example_obs(EnvSpec(obs_shape=(3,)), batch_shape=(2,)).shape
      (2, 3)
    """
    obs = jax.tree.map(lambda x: jnp.zeros((*batch_shape, *x.shape), x.dtype), obs_structs(spec))
    return RecurrentObs(obs, jnp.zeros((*batch_shape, memory_size))) if memory_size else obs
