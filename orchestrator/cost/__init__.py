"""The cost of a run, item by item."""
