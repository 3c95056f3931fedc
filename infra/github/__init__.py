"""GitHub from outside a workflow: the repository behind a checkout, releases."""
