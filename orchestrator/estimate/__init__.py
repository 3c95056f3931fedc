"""How long a training takes, before it starts and while it runs."""
