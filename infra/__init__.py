"""AWS and SSH as we wish they were: EC2, spot market, object store, SSH host, user data, policies."""
