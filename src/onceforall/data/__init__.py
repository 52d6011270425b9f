"""Data sets, augmentation and elastic resolution."""

from onceforall.data.batch import Batch, normalize
from onceforall.data.cache import cache_fits, cache_text, may_cache
from onceforall.data.dataset import DataSet
from onceforall.data.depth import BEFORE, Depth
from onceforall.data.evaluation import eval_batches
from onceforall.data.labels import NOTHING, Known
from onceforall.data.mirrored import mirrored_classes
from onceforall.data.pictures import ArrayPictures, FilePictures, Pictures, sample
from onceforall.data.sources import load_data
from onceforall.data.spec import DEFAULT_CACHE, NAMED, Augment, DataSpec, Framing, Loader, spec_of
from onceforall.data.training import TrainBatches

__all__ = [
    "BEFORE",
    "DEFAULT_CACHE",
    "NAMED",
    "NOTHING",
    "ArrayPictures",
    "Augment",
    "Batch",
    "DataSet",
    "DataSpec",
    "Depth",
    "FilePictures",
    "Framing",
    "Known",
    "Loader",
    "Pictures",
    "TrainBatches",
    "cache_fits",
    "cache_text",
    "eval_batches",
    "load_data",
    "may_cache",
    "mirrored_classes",
    "normalize",
    "sample",
    "spec_of",
]
