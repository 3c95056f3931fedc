"""What a run costs, item by item."""
