"""The folder of a sub-network: there and back, from its description alone, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from older_form import older
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import onceforall
from onceforall.deploy.description import read_description, sha256
from onceforall.deploy.folder import Scored, load_subnet, save_subnet
from onceforall.errors import UserError
from onceforall.nn import Supernet, build, extract
from onceforall.space import Arch, SearchSpace, lower, search_space
from onceforall.training.evaluate import Evaluator

TABLE = search_space("mobilenet_v3_large_32px", width_mult=0.25).restrict(resolutions=[12, 16])


def test_there_and_back(folder, supernet, evaluator):
    about, net = read_description(folder), load_subnet(folder)
    again = evaluator.subnet(supernet, Arch.parse(supernet.space, about.arch))
    images = torch.rand(3, 3, about.resolution, about.resolution)
    assert torch.equal(net(images), again(images))
    assert not net.training
    assert about.provenance["sha256"] == sha256(folder.parent / about.provenance["source"])
    assert (folder / "README.md").read_text().startswith("---\nlibrary_name: onceforall\n")


def test_the_description_is_enough_to_rebuild_the_net(folder):
    """Only model.json's values and the arrays are used, under names that are torch's."""
    about = json.loads((folder / "model.json").read_text())
    space = SearchSpace.from_dict(about["space"])
    plan = lower(space, Arch.parse(space, about["arch"]), about["num_classes"])
    net = build(plan, load_file(folder / "model.safetensors"), bn_eps=about["bn_eps"])
    net = net.eval().to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, about["resolution"], about["resolution"])
    assert torch.equal(net(images), load_subnet(folder)(images))
    assert [row["name"] for row in about["plan"]] == [layer.name for layer in plan.layers()]
    assert sum(row["residual"] for row in about["plan"]) == sum(
        block.residual for blocks in (plan.first, *plan.stages) for block in blocks)


def test_the_description_feeds_the_net(folder, digits):
    about = json.loads((folder / "model.json").read_text())
    assert about["classes"] == list(digits.classes)
    assert about["preprocessing"]["resize_shorter_side"] == round(about["resolution"] / 0.875)
    data = onceforall.deploy.folder.read_description(folder).data_spec()
    assert (data.name, data.train_portion) == ("digits", 0.9)
    score = Evaluator(digits).score_net(load_subnet(folder), about["resolution"], digits.test)
    assert (score.top1, score.images) == (about["accuracy"]["top1"], about["accuracy"]["images"])


def test_a_copy_of_the_folder_is_enough(folder, tmp_path):
    """As from a hub's snapshot: a folder elsewhere with the same files."""
    elsewhere = tmp_path / "hub" / "snapshot"
    folder.rename(elsewhere.parent.mkdir() or elsewhere)
    images = torch.rand(1, 3, 16, 16)
    assert load_subnet(str(elsewhere))(images).shape == (1, 10)


def test_a_folder_of_an_older_version(supernet, evaluator, weights, tmp_path):
    """Its two files name the table of the catalogue, instead of the rows."""
    space = TABLE.restrict(depth=[2])
    net = extract(Supernet(space, 10, generator=torch.Generator().manual_seed(0)), space.smallest)
    net = net.eval().to(memory_format=torch.channels_last)
    save_subnet(Scored.of(evaluator, net, space, space.smallest).extracted, tmp_path, source=weights)
    path, said = tmp_path / "model.safetensors", tmp_path / "model.json"
    with safe_open(path, "pt") as file:
        header = file.metadata()
    about = json.loads(header["onceforall"])
    save_file(load_file(path), path, {**header, "onceforall": json.dumps({**about, "space": older(space)})})
    values = json.loads(said.read_text())
    values["sha256"]["model.safetensors"] = sha256(path)
    gone = values.pop("foreign")
    assert gone == space.smallest.foreign(space) and list(gone) == ["nnablanas"]
    values["genotype"] = gone["nnablanas"]["genotype"]
    said.write_text(json.dumps({**values, "space": older(space)}))
    images = torch.rand(1, 3, 12, 12)
    assert torch.equal(load_subnet(tmp_path)(images), net(images))
    said.write_text(json.dumps({**values, "space": older(TABLE.restrict(depth=[2, 3]))}))
    with pytest.raises(UserError, match="is not the sub-network that model.json describes"):
        load_subnet(tmp_path)
    said.write_text(json.dumps({**values, "space": older(space), "genotype": space.largest.to_genotype(space)[::-1]}))
    with pytest.raises(UserError, match="model.json: arch: .* is not what the genotype beside it says"):
        load_subnet(tmp_path)


@pytest.mark.parametrize(("change", "message"), [
    ({"format": 1}, "is of format 1; this version reads 2"),
    ({"format": None}, "is of format None; this version reads 2"),
    ({"bn_eps": -1}, "is damaged (bn_eps: "),
    ({"preprocessing": {}}, "is damaged (preprocessing.rounded: "),
    ({"resolution": 13}, "is not the sub-network that model.json describes"),
    ({"num_classes": 3}, "is not the sub-network that model.json describes"),
    ({"space": {}}, "is not the sub-network that model.json describes"),
    ({"data": {"name": "folder", "root": ["a"]}}, "is damaged (data.root."),
    ({"arch": "12:x"}, "is not the sub-network that model.json describes"),
    ({"sha256": {"model.safetensors": "0"}}, "is not the sub-network that model.json describes"),
])
def test_a_damaged_description_is_named(folder, change, message):
    values = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(UserError) as error:
        load_subnet(folder)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", "[" * 100_000, '"\\ud800"'])
def test_what_is_no_description_is_refused(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(UserError, match="is no description of a sub-network"):
        load_subnet(folder)


def test_a_folder_without_one_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_subnet(tmp_path)


def test_other_weights_are_refused(folder, weights):
    (folder / "model.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(UserError):
        load_subnet(folder)
