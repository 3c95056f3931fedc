"""The places where a training could run, with their prices."""
