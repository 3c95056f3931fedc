"""The training module: the same code on the free runner and on the rented instance."""
