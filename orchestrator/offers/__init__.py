"""What could be rented, where, at which price."""
