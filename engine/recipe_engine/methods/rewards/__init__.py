"""Built-in rewards: what judges the answers of a policy."""
