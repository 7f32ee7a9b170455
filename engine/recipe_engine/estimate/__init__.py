"""How much memory a recipe needs, found before a weight is loaded."""
