"""Commands on runs: train, attach, stop, status, logs."""
