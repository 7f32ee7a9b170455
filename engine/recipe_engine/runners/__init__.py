"""Where stages are executed, and the one protocol that is spoken there."""
