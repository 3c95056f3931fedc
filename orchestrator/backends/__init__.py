"""Where a training runs: this CPU, or an instance on EC2."""
