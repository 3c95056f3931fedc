"""Decides where to train, and explains the decision."""
