"""Data sets, augmentation and elastic resolution."""

from onceforall.data.batch import Batch, normalize
from onceforall.data.depth import BEFORE, Depth
from onceforall.data.evaluation import CENTRE_SHARE, eval_batches
from onceforall.data.pictures import ArrayPictures, DataSet, FilePictures, Pictures, sample
from onceforall.data.sources import load_data
from onceforall.data.spec import NAMED, Augment, DataSpec, Loader
from onceforall.data.training import TrainBatches

__all__ = [
    "BEFORE",
    "CENTRE_SHARE",
    "NAMED",
    "ArrayPictures",
    "Augment",
    "Batch",
    "DataSet",
    "DataSpec",
    "Depth",
    "FilePictures",
    "Loader",
    "Pictures",
    "TrainBatches",
    "eval_batches",
    "load_data",
    "normalize",
    "sample",
]
