"""cpprb's prioritized buffer, written in C++ and called from Python."""

import common
import cpprb
import numpy as np
import replay_common


def main():
    options = replay_common.options("cpprb prioritized replay")
    fields = replay_common.item(np.zeros)
    buffer = cpprb.PrioritizedReplayBuffer(
        options.capacity,
        {name: {"shape": x.shape or 1, "dtype": x.dtype} for name, x in fields.items()},
        alpha=replay_common.EXPONENT, eps=replay_common.EPSILON,
    )  # fmt: skip
    items = {name: np.zeros((replay_common.ADD, *x.shape), x.dtype) for name, x in fields.items()}
    rng = np.random.default_rng(0)
    td_error = np.exp(rng.normal(size=(options.calls, replay_common.BATCH)))

    def cycle(number):
        buffer.add(**items)
        batch = buffer.sample(replay_common.BATCH, beta=0.4)
        buffer.update_priorities(batch["indexes"], td_error[number % options.calls])

    def run():
        for number in range(options.calls):
            if options.operation == "cycle":
                cycle(number)
            else:
                buffer.sample(replay_common.BATCH, beta=0.4)

    for number in range(options.capacity // replay_common.ADD + 1):
        cycle(number)
    clocks, _ = common.timed(run, options.runs)
    replay_common.answer(
        options, clocks, versions=common.versions("cpprb", "numpy"), device="cpu", num_devices=1,
    )  # fmt: skip


if __name__ == "__main__":
    main()
