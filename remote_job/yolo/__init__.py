"""Trains with Ultralytics; the only package that imports it."""
