"""What the project is for: rows, batches, losses and loops. The only home of numerics."""
