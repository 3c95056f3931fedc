"""The simulated cloud: a moto made honest, and a real SSH host for every instance."""
