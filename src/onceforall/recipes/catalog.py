"""The recipes that come with the package, by name, and the one that suits a data set."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from onceforall.data import Augment, DataSet
from onceforall.errors import UserError
from onceforall.recipes.preset import Preset

_SMALL = "mobilenet_v3_large_32px"
PLAIN = Augment(crop_scale=(0.6, 1.0), brightness=0.0, saturation=0.0)
SMALL = 96  # pixels, up to which pictures and sub-networks are trained as small ones

_FASHION = Preset(
    "fashion-mnist-shrinking", "fashion-mnist", _SMALL, 0.5, (16, 20), 20, batch=64, epochs=(4, 1, 1, 1, 1, 2),
    lr=(0.05, 0.02, 0.02, 0.02, 0.02, 0.02), subnets=(1, 1, 1, 1, 2, 2), augment=PLAIN)
_CIFAR = Preset(
    "cifar10-shrinking", "cifar10", _SMALL, 0.5, (20, 24), 24, batch=64, epochs=(8, 2, 1, 1, 1, 2),
    lr=(0.05, 0.02, 0.02, 0.02, 0.02, 0.02), subnets=(1, 1, 1, 1, 2, 2), weight_decay=5e-4,
    augment=PLAIN, pictures=45_000)
_PICTURES = Preset(
    "small-pictures-shrinking", "folder", "mobilenet_v3_large_64px", 0.5, (40, 48), 48, batch=64,
    epochs=(10, 2, 1, 1, 1, 2), lr=(0.05, 0.02, 0.02, 0.02, 0.02, 0.02), subnets=(1, 1, 1, 1, 2, 2),
    weight_decay=5e-4, augment=replace(PLAIN, crop_scale=(0.5, 1.0)), pictures=36_000)

RECIPES = {recipe.name: recipe for recipe in (
    # by the sandwich rule the last stage trains the smallest sub-network in every step: random ones seldom come near it
    Preset("digits", "digits", _SMALL, 0.5, (12, 16), 16, batch=32, epochs=(10, 3, 2, 3, 3, 8),
           lr=(0.06, 0.03, 0.03, 0.03, 0.03, 0.03), subnets=(1, 1, 1, 1, 2, 3),
           strategy=(*("shrinking",) * 5, "sandwich"), augment=replace(PLAIN, crop_scale=(0.7, 1.0), flip=False),
           calibration_images=500, validations=2),
    # in the hours that a CPU has, one stage of random sub-networks reaches more than the six: docs/strategies.md
    _FASHION.at_random("fashion-mnist-cpu", epochs=18), _FASHION,
    _CIFAR.at_random("cifar10-cpu", epochs=26), _CIFAR,
    _PICTURES.at_random("small-pictures-cpu", epochs=30), _PICTURES,
    Preset("cifar10-gpu", "cifar10", _SMALL, 1.0, (24, 32), 32, batch=256, epochs=(150, 60, 20, 60, 20, 60),
           lr=(0.4, 0.12, 0.02, 0.06, 0.02, 0.06), warmup=(5, 2, 0, 2, 0, 2), weight_decay=1e-4,
           augment=Augment(crop_scale=(0.25, 1.0))),
    Preset("imagenet", "imagenet", "mobilenet_v3_large", 1.0, (128, 224), 224, batch=512, micro_batch=64,
           epochs=(185, 125, 25, 125, 25, 125), lr=(0.65, 0.24, 0.02, 0.06, 0.02, 0.06), warmup=(5, 5, 0, 5, 0, 5)),
)}

_DEFAULTS = {"digits": "digits", "fashion-mnist": "fashion-mnist-cpu", "cifar10": "cifar10-cpu",
             "imagenet": "imagenet"}


def recipe_named(name: str) -> Preset:
    """The recipe of that name; raises UserError for another."""
    if name not in RECIPES:
        raise UserError("--recipe", f"{name!r} is not a recipe", f"known: {', '.join(RECIPES)}")
    return RECIPES[name]


def recipe_of(data: DataSet, *, small: bool) -> Preset:
    """The recipe for pictures that are loaded; `small`: large ones are to be trained on at a small size."""
    name = "folder" if data.spec is None else data.spec.name
    return recipe_for(name, pixels=0 if name in _DEFAULTS else _pixels(data), small=small)


def recipe_for(data: str, *, pixels: int, small: bool = False) -> Preset:
    """The recipe for a data set by its name; for a folder of pictures by their shorter side in pixels, and whether
    large ones are to be trained on at a `small` size, as a CPU has to."""
    if data in _DEFAULTS:
        return RECIPES[_DEFAULTS[data]]
    if pixels <= 40:
        return RECIPES["cifar10-cpu"]
    return RECIPES["small-pictures-cpu" if small or pixels <= SMALL else "imagenet"]


def _pixels(data: DataSet) -> int:
    """The pictures' shorter side, the median of some of them."""
    sizes = map(data.train.size, range(0, len(data.train), max(1, len(data.train) // 50)))
    return int(median([min(size) for size in sizes if size is not None] or [224]))
