"""Memory cells, the recurrent layers of recurrent networks, by name in `MEMORIES`.

The memory of a cell is one array `[..., H]`. Environments carry it from step to step, resets clear
it and trajectories store it (`rljax.envs.memory`), so the training loop is the same for all cells.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rljax.networks.layers import orthogonal
from rljax.types import Array, PyTree


class MemoryCell(nn.Module):
    """A recurrent layer: `m_t = step(m_{t-1}, inputs(x_t))`, with the output `output(m_t, ...)`.

    A subclass defines `step` and, where they differ from these, the other methods. Its row in
    `MEMORIES` is a value of the option `memory`. Memories are 0 at the start of an episode.

    Attributes:
      size: number of units.
    """

    size: int

    @property
    def memory_size(self) -> int:
        """Size H of the memory that is carried from step to step."""
        return self.size

    def inputs(self, features: Array) -> PyTree:
        """Returns the part that depends on the features `[..., F]` only, for all steps at once."""
        return features

    def step(self, memory: Array, inputs: PyTree) -> Array:
        """Returns the next memory, `[..., H]`."""
        raise NotImplementedError(f"{type(self).__name__} has no method `step`.")

    def output(self, memory: Array, inputs: PyTree) -> Array:
        """Returns the output `[..., *]` of a step from the memory after it, `[..., H]`."""
        del inputs
        return memory

    def unroll(self, inputs: PyTree, stored: Array, start: Array) -> Array:
        """Returns the memory after each step of a rollout, `[T, B, H]`.

        Args:
          inputs: result of `inputs`, `[T, B, *]`.
          stored: memory before each step, stored when acting, `[T, B, H]`.
          start: the step starts from `stored` instead of the memory after the previous step,
            `[T, B]` bool; the first step always does.
        """

        def one_step(memory, step):
            inputs, stored, start = step
            memory = self.step(jnp.where(start[:, None], stored, memory), inputs)
            return memory, memory

        return jax.lax.scan(one_step, stored[0], (inputs, stored, start))[1]


def orthogonal_blocks(count: int):
    """Returns an initializer of kernels `[in, count * out]` of orthogonal blocks, one a gate."""

    def init(key, shape):
        block = shape[0], shape[1] // count
        blocks = [orthogonal()(k, block) for k in jax.random.split(key, count)]
        return jnp.concatenate(blocks, axis=-1)

    return init


class GRU(MemoryCell):
    """Gated recurrent unit, https://arxiv.org/abs/1406.1078; the memory is its state h.

    r, z = sigmoid(x W + h U + b),  n = tanh(x W_n + b_n + r (h U_n + c)),  h' = (1-z) n + z h
    """

    def setup(self):
        self.of_input = nn.Dense(3 * self.size, kernel_init=orthogonal())
        self.of_memory = self.param("of_memory", orthogonal_blocks(3), (self.size, 3 * self.size))
        self.bias = self.param("bias", nn.initializers.zeros, (self.size,))

    def inputs(self, features):
        return self.of_input(features)

    def step(self, memory, inputs):
        recurrent = jnp.split(memory @ self.of_memory, 3, axis=-1)
        reset, update, new = jnp.split(inputs, 3, axis=-1)
        reset, update = nn.sigmoid(reset + recurrent[0]), nn.sigmoid(update + recurrent[1])
        bias = jnp.broadcast_to(self.bias, recurrent[2].shape)
        new = nn.tanh(new + reset * (recurrent[2] + bias))
        return (1.0 - update) * new + update * memory


class LSTM(MemoryCell):
    """Long short-term memory with forget gate, https://doi.org/10.1162/089976600300015015.

        i, f, o = sigmoid(x W + h U + b),  g = tanh(x W_g + h U_g + b_g)
        c' = f c + i g,  h' = o tanh(c')

    The memory is `[h, c]`, so H is twice the number of units; the output is h. The bias of the
    forget gate starts at 1.
    """

    @property
    def memory_size(self):
        return 2 * self.size

    def setup(self):
        def bias_init(key, shape, dtype):
            del key
            return jnp.zeros(shape, dtype).at[self.size : 2 * self.size].set(1.0)

        self.of_input = nn.Dense(4 * self.size, kernel_init=orthogonal(), bias_init=bias_init)
        self.of_memory = self.param("of_memory", orthogonal_blocks(4), (self.size, 4 * self.size))

    def inputs(self, features):
        return self.of_input(features)

    def step(self, memory, inputs):
        hidden, cell = jnp.split(memory, 2, axis=-1)
        gates = inputs + hidden @ self.of_memory
        write, forget, new, read = jnp.split(gates, 4, axis=-1)
        cell = nn.sigmoid(forget) * cell + nn.sigmoid(write) * nn.tanh(new)
        return jnp.concatenate([nn.sigmoid(read) * nn.tanh(cell), cell], axis=-1)

    def output(self, memory, inputs):
        del inputs
        return memory[..., : self.size]


class S5(MemoryCell):
    """A diagonal linear state-space layer (S5), https://arxiv.org/abs/2208.04933.

        x' = a x + (a - 1) / lambda (B u),  a = exp(lambda step)
        y = gelu(2 Re(C x) + D u),  output = u + y sigmoid(W y)

    u `[size]` is a linear map of the features with layer normalization; x, lambda and step have
    one entry for each unit, x and lambda complex. The memory is `[Re x, Im x]`, so H is twice the
    number of units. The steps of a rollout are computed in parallel, by an associative scan in
    which a is 0 where an episode starts, https://arxiv.org/abs/2303.03982. As in the paper, lambda
    starts as the eigenvalues of HiPPO-N and the step sizes between 0.001 and 0.1.
    """

    @property
    def memory_size(self):
        return 2 * self.size

    def setup(self):
        gaussian = functools.partial(nn.initializers.variance_scaling, mode="fan_in")
        complex_b = gaussian(0.5, distribution="normal")
        complex_c = gaussian(2.0, distribution="normal")
        self.of_features = nn.Dense(self.size, kernel_init=orthogonal())
        self.norm = nn.LayerNorm()
        self.b = nn.Dense(2 * self.size, use_bias=False, kernel_init=complex_b)
        self.c = nn.Dense(self.size, use_bias=False, kernel_init=complex_c)
        self.d = self.param("d", nn.initializers.normal(1.0), (self.size,), jnp.float32)
        self.gate = nn.Dense(self.size)
        half = nn.initializers.constant(np.log(0.5))
        self.log_decay = self.param("log_decay", half, (self.size,), jnp.float32)
        self.frequency = self.param("frequency", lambda key: hippo_frequencies(self.size))
        self.log_step = self.param("log_step", log_uniform(0.001, 0.1), (self.size,))

    def transition(self) -> tuple[Array, Array]:
        """Returns a and (a - 1) / lambda, complex `[size]`; |a| is below 1."""
        rate = jax.lax.complex(-jnp.exp(self.log_decay), self.frequency)
        a = jnp.exp(rate * jnp.exp(self.log_step))
        return a, (a - 1.0) / rate

    def inputs(self, features):
        u = self.norm(self.of_features(features))
        driven = as_complex(self.b(u))
        return u, driven * jnp.broadcast_to(self.transition()[1], driven.shape)

    def step(self, memory, inputs):
        x, driven = as_complex(memory), inputs[1]
        return as_real(jnp.broadcast_to(self.transition()[0], x.shape) * x + driven)

    def output(self, memory, inputs):
        u = inputs[0]
        y = nn.gelu(self.c(memory) + jnp.broadcast_to(self.d, u.shape) * u)
        return u + y * nn.sigmoid(self.gate(y))

    def unroll(self, inputs, stored, start):
        driven, start = inputs[1], start.at[0].set(True)[..., None]
        a = jnp.broadcast_to(self.transition()[0], driven.shape)
        driven = driven + jnp.where(start, a * as_complex(stored), 0.0)

        def combine(earlier, later):
            return later[0] * earlier[0], later[0] * earlier[1] + later[1]

        return as_real(jax.lax.associative_scan(combine, (jnp.where(start, 0.0, a), driven))[1])


def as_complex(x: Array) -> Array:
    """Returns `[Re x, Im x]` as complex numbers, `[..., 2 N] -> [..., N]`."""
    return jax.lax.complex(*jnp.split(x, 2, axis=-1))


def as_real(x: Array) -> Array:
    """Returns complex numbers as `[Re x, Im x]`, `[..., N] -> [..., 2 N]`."""
    return jnp.concatenate([x.real, x.imag], axis=-1)


@functools.cache
def _hippo_frequencies(size: int) -> np.ndarray:
    root = np.sqrt(np.arange(2 * size) + 0.5)
    upper = np.triu(np.outer(root, root), 1)
    return np.linalg.eigvalsh(1j * (upper - upper.T))[size:].astype(np.float32)


def hippo_frequencies(size: int) -> Array:
    """Returns the positive imaginary parts of the eigenvalues of HiPPO-N, `[size]` ascending.

    HiPPO-N is the normal part of the HiPPO-LegS matrix, here of `2 size` rows; the real parts are
    all -1/2. Gu et al. 2022, https://arxiv.org/abs/2206.11893 (section 3).
    """
    return jnp.asarray(_hippo_frequencies(size))


def log_uniform(low: float, high: float):
    """Returns an initializer of logarithms of numbers between `low` and `high`."""

    def init(key, shape):
        return jax.random.uniform(key, shape, jnp.float32, np.log(low), np.log(high))

    return init


MEMORIES: dict[str, type[MemoryCell] | None] = {"none": None, "gru": GRU, "lstm": LSTM, "s5": S5}
