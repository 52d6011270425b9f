"""Recipes: stage schedules and defaults by data set, as values; and the whole pipeline from them."""

from onceforall.recipes.catalog import RECIPES, recipe_for, recipe_named
from onceforall.recipes.preset import STAGES, WHOLE, Preset, StageRow

__all__ = ["RECIPES", "STAGES", "WHOLE", "Preset", "StageRow", "recipe_for", "recipe_named"]
