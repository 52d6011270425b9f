"""What is done to training pictures, said before training."""

from __future__ import annotations

from onceforall.data import mirrored_classes
from onceforall.interop.config import Config
from onceforall.space.errors import printable
from onceforall.train.setup import Options, data_of, data_spec

_NAMED = 4  # classes that a hint names


def say_augmentation(config: Config, options: Options) -> None:
    """Tell the listener how training pictures are augmented, and of classes that mirroring may mix up."""
    if options.listener is None:
        return
    spec = data_spec(config, search=options.search)
    options.listener({"kind": "note", "text": f"augmentation: {spec.augment.words}"})
    mixed = mirrored_classes(data_of(spec).classes) if spec.augment.flip else ()
    if mixed:
        names = ", ".join(map(printable, mixed[:_NAMED])) + (", .." if len(mixed) > _NAMED else "")
        options.listener({"kind": "note", "text": f"hint: a mirrored picture may be of another class here ({names}); "
                          "--no-flip leaves training pictures as they are"})
