"""flashbax's prioritized buffer of items.

Differs from rljax: samples are not stratified, and the minimum probability of the whole buffer is
not computed, so importance weights are relative to the largest weight of the batch.
"""

import common
import flashbax
import jax
import jax.numpy as jnp
import replay_common


def main():
    options = replay_common.options("flashbax prioritized replay")
    buffer = flashbax.make_prioritised_item_buffer(
        max_length=options.capacity, min_length=replay_common.BATCH,
        sample_batch_size=replay_common.BATCH, add_batches=True,
        priority_exponent=replay_common.EXPONENT, device=jax.default_backend(),
    )  # fmt: skip

    def sample(state, key):
        batch = buffer.sample(state, key)
        return (batch.experience, batch.probabilities), batch.indices

    def reprioritize(state, indices, td_error):
        return buffer.set_priorities(state, indices, td_error + replay_common.EPSILON)

    state = buffer.init(replay_common.item(jnp.zeros))
    clocks = replay_common.time_jax(options, state, buffer.add, sample, reprioritize)
    versions = common.versions("flashbax", "jax")
    replay_common.answer(options, clocks, versions=versions, **common.jax_device())


if __name__ == "__main__":
    main()
