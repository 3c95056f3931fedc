"""Faster training on a CPU: kernels, precision, image cache."""
