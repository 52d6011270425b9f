"""Recipes: stage schedules and defaults by data set, as values; and the whole pipeline from them."""

from onceforall.recipes.catalog import RECIPES, recipe_for, recipe_named
from onceforall.recipes.recipe import STAGES, WHOLE, Recipe, StageRow, configs

__all__ = ["RECIPES", "STAGES", "WHOLE", "Recipe", "StageRow", "configs", "recipe_for", "recipe_named"]
