"""An export target of one's own: the module as torch pickles it."""

from __future__ import annotations

import torch

from onceforall.deploy.targets import TARGETS, Target


def write(job, path):
    """The whole module."""
    torch.save(job.net, path)
    return {}


def opened(path, _threads):
    """The module, from images to logits."""
    net = torch.load(path, weights_only=False)

    def infer(images):
        with torch.inference_mode():
            return net(torch.from_numpy(images)).numpy()

    return infer


TARGETS["pickle"] = Target("pickled", ".pt", ("fp32",))
