"""Configurations of other fine-tuning programs become recipes: ``recipe import``."""
