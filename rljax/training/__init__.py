"""Training: the loop, evaluation, and many runs in one compiled program."""
