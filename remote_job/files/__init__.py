"""Files of a training: durable writes, checkpoints, results."""
