"""Copies inputs from the store and results to it, in a process without user code."""
