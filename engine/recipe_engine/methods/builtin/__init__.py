"""The built-in plugin: descriptors only, so that a recipe is checked without a training stack."""

from __future__ import annotations

from recipe_engine.methods.builtin.data import recipe_data_formats, recipe_reward_sources
from recipe_engine.methods.builtin.evaluations import recipe_evaluate_methods
from recipe_engine.methods.builtin.models import recipe_adapt_methods, recipe_load_methods
from recipe_engine.methods.builtin.places import recipe_push_methods, recipe_runners, recipe_sources
from recipe_engine.methods.builtin.trainings import recipe_train_methods

__all__ = [
    "recipe_adapt_methods",
    "recipe_data_formats",
    "recipe_evaluate_methods",
    "recipe_load_methods",
    "recipe_push_methods",
    "recipe_reward_sources",
    "recipe_runners",
    "recipe_sources",
    "recipe_train_methods",
]
