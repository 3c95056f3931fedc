"""What we train on: snapshot, checks, split, fingerprint, archive, a generated sample."""
