"""What answers are worth: metrics over rows, and whether a difference between two models is more than chance."""
