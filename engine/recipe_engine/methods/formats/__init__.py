"""Built-in data formats: from a row to text with its supervised parts."""
