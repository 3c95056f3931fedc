"""Carry out an attempt: on this CPU, on an EC2 instance, or on a Ray cluster."""
