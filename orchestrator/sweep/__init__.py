"""Sweeps: many trainings that answer one question."""
