"""Measures a few training steps for the estimate."""
