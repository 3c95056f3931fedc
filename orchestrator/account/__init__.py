"""The user's AWS account: bootstrap and doctor."""
