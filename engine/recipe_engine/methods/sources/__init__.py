"""Built-in sources. They run on the host and import nothing heavy."""
