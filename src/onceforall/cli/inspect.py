"""`ofa inspect`: the plan of a sub-network, its cost, and how many its space has."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from onceforall.cli.source import (
    ArchText,
    Front,
    FrontRow,
    Genotype,
    Json,
    Resolution,
    SpaceName,
    Which,
    arch_of,
    is_space,
)
from onceforall.cli.start import KERNELS, RATIOS, Depth, Kernels, Ratios, Sizes, choices_of, sizes_or_own
from onceforall.cost import layer_macs, layer_params, macs, params
from onceforall.errors import UserError
from onceforall.space import Arch, SearchSpace, lower, search_space
from onceforall.space.rows import listed


def inspect(
    source: Annotated[str, typer.Argument(help="a run, a weights file, a sub-network, a search space's name, or a "
                                               "pretrained network as `ofa fit --from` takes it")],
    arch: ArchText = None,
    genotype: Genotype = None,
    front: Front = None,
    row: FrontRow = None,
    resolution: Resolution = None,
    space_name: SpaceName = None,
    sizes: Sizes = None,
    kernels: Kernels = KERNELS,
    ratios: Ratios = RATIOS,
    depth: Depth = None,
    json_only: Json = False,
) -> None:
    """Show a sub-network's layers, MACs and parameters, and the size of its search space."""
    which, pretrained = Which(arch, genotype, resolution, front, row), False
    if is_space(source):
        space, classes = search_space(source), 1000
        chosen = which.of(space)
    else:
        from onceforall.pretrained.reading import outline
        from onceforall.pretrained.sources import is_named
        from onceforall.weights.nets import open_weights
        if pretrained := is_named(source):
            found = outline(source, sizes=sizes_or_own(sizes), choices=choices_of(kernels, ratios, depth))
            space, classes, chosen = found.space, found.num_classes, which.of(found.space)
        else:
            trained = open_weights(source, space=space_name)
            space, classes, chosen = trained.space, trained.num_classes, arch_of(trained, which)
    if not pretrained and (sizes, kernels, ratios, depth) != (None, KERNELS, RATIOS, None):
        raise UserError("--sizes, --kernels, --ratios or --depth", "is for a pretrained network", "leave it out")
    about = _about(space, chosen, classes)
    if json_only:
        typer.echo(json.dumps(about, indent=2))
        return
    _show(about)
    if pretrained:
        _show_rows(space, classes)


def _about(space: SearchSpace, arch: Arch, classes: int) -> dict[str, Any]:
    layers = [{"name": x.name, "inputs": x.inputs, "outputs": x.outputs, "kernel": x.kernel, "stride": x.stride,
               "groups": x.groups, "size": x.size, "out_size": x.out_size, "act": x.act, "macs": layer_macs(x),
               "params": layer_params(x)} for x in lower(space, arch, classes).layers()]
    return {"space": space.name, "arch": str(arch), "genotype": arch.to_genotype(space),
            "resolution": arch.resolution, "params": params(space, arch, num_classes=classes),
            "macs": macs(space, arch, num_classes=classes), "count": space.count, "layers": layers}


def _show(about: dict[str, Any]) -> None:
    from onceforall.cli.tables import show, table

    layers = table(("layer", "channels", "kernel", "map", "act", "MACs", "parameters"), map(_row, about["layers"]))
    for column in layers.columns[5:]:
        column.justify = "right"
    show(layers,
         f"\nspace       {about['space']}: {about['count']:,} sub-networks a resolution",
         f"arch        {about['arch']}",
         f"genotype    {','.join(map(str, about['genotype']))}",
         f"MACs        {about['macs']:,} at {about['resolution']} pixels",
         f"parameters  {about['params']:,}")


def _show_rows(space: SearchSpace, classes: int) -> None:
    """The table of a pretrained network, and how far its sub-networks reach."""
    from onceforall.cli.tables import show, table

    rows = table(("stage", "blocks", "channels", "stride", "kind", "choices of a block"), (
        [str(s), listed(row.depth), str(row.width), str(row.stride), row.kind,
         "; ".join(f"{name} {listed(values)}" for name, values in row.choices.items())]
        for s, row in enumerate(space.stages)))
    ends = (f"{word:11} {macs(space, arch, num_classes=classes):,} MACs, {params(space, arch, num_classes=classes):,} "
            "parameters" for word, arch in (("smallest", space.smallest), ("largest", space.largest)))
    show(rows, "", *ends)


def _row(layer: dict[str, Any]) -> list[str]:
    size, out_size = layer["size"], layer["out_size"]
    return [layer["name"], f"{layer['inputs']} -> {layer['outputs']}", f"{layer['kernel']}x{layer['kernel']}",
            f"{size}" if size == out_size else f"{size} -> {out_size}", layer["act"] or "", f"{layer['macs']:,}",
            f"{layer['params']:,}"]
