"""The built-in methods. They are registered by the same hooks as anybody's."""
