"""Decides where a training runs, drives it there, publishes the model and accounts for the cost."""
