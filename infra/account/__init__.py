"""The user's AWS account: IAM policies, roles and the stack that creates them."""
