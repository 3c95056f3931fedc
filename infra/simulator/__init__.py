"""The simulated cloud: moto with EC2's delays and limits, and a real SSH host for every instance."""
