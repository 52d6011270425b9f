"""Pictures and the logits that they must give, for the self-test of an app that an export goes into."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image

from onceforall.data import DataSet
from onceforall.data.decode import Broken
from onceforall.data.pictures import sample
from onceforall.deploy.classify import EXPECTED, SELFTEST, prepare
from onceforall.deploy.description import Description
from onceforall.files import write_text
from onceforall.nn import Subnet

PICTURES = 5
_LARGEST = 4  # the longer side of a picture that is kept, in shorter sides as the net's input wants them


def write_selftest(folder: Path, net: Subnet, about: Description, data: DataSet) -> None:
    """Write test pictures, of which large ones are scaled down, and what torch answers to each.

    Args:
        folder: of an extracted sub-network; it gets a subfolder.
        net: the sub-network.
        about: what its folder says of it.
        data: its data set, whose test pictures are drawn from.
    """
    place, rows = folder / SELFTEST, []
    place.mkdir(exist_ok=True)
    chosen, most = sample(data.test, PICTURES, classes=data.classes, seed=0), _LARGEST * about.preprocessing.crop
    for index in range(len(chosen)):
        pixels = chosen.read(index)
        if isinstance(pixels, Broken):
            continue
        path, image = place / f"{index + 1}.png", Image.fromarray(pixels)
        image.thumbnail((most, most))
        image.save(path)
        ready = torch.from_numpy(prepare(str(path), about.preprocessing.model_dump()))
        with torch.inference_mode():
            logits = net(ready[None].to(memory_format=torch.channels_last))[0].tolist()
        rows.append({"picture": path.name, "class": data.classes[int(chosen.labels[index])], "logits": logits})
    lines = ",\n ".join(map(json.dumps, rows))
    write_text(place / EXPECTED, f"[{lines}]\n")
