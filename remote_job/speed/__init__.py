"""Faster training on a CPU: kernels, precision, allocator, image cache."""
