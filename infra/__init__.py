"""Clients of AWS, GitHub, SSH and object stores, and the simulated cloud."""
