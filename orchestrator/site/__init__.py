"""The public page of a model, and its feed."""
