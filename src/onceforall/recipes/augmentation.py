"""What is done to training pictures, and settings that may suit them, said before training."""

from __future__ import annotations

from onceforall.data import DataSet, cache_text, mirrored_classes
from onceforall.errors import printable
from onceforall.training.setup import Options, data_of
from onceforall.training.stage import Training

_NAMED = 4  # classes that a hint names
_RARE = 10  # times as many pictures in the largest class as in the smallest


def say_augmentation(training: Training, options: Options) -> None:
    """Tell the listener how training pictures are augmented, and where shrunk ones are kept.

    Hints name rare classes, and classes that mirroring may mix up.
    """
    if options.listener is None:
        return
    spec = training.data
    options.listener({"kind": "note", "text": f"augmentation: {spec.augment.words}"})
    data = data_of(spec)
    if kept := cache_text(data.taught, training.part.resolutions, augment=spec.augment, limit=spec.cache):
        options.listener({"kind": "note", "text": kept})
    if not training.stage.batches.balanced and (rare := _rare(data)):
        options.listener({"kind": "note", "text": f"hint: {rare}; --balanced draws every class equally often"})
    mixed = mirrored_classes(data.classes) if spec.augment.flip else ()
    if mixed:
        names = ", ".join(map(printable, mixed[:_NAMED])) + (", .." if len(mixed) > _NAMED else "")
        options.listener({"kind": "note", "text": f"hint: a mirrored picture may be of another class here ({names}); "
                          "--no-flip leaves training pictures as they are"})


def _rare(data: DataSet) -> str:
    """The smallest and the largest class in words, where one has ten times as many training pictures; else empty."""
    counts = [(count, name) for count, name in zip(data.train.labels.bincount().tolist(), data.classes, strict=False)
              if count]
    (fewest, rare), (most, common) = min(counts), max(counts)
    if most < _RARE * fewest:
        return ""
    return f"class {printable(rare)} has {fewest:,} training pictures, {printable(common)} has {most:,}"
