"""`ofa inspect`: the plan of a sub-network, its cost, and how many its space has."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from onceforall.cli.source import ArchText, Front, FrontRow, Genotype, Resolution, SpaceName, Which, arch_of, is_space
from onceforall.cost import layer_macs, layer_params, macs, params
from onceforall.space import Arch, SearchSpace, lower, search_space


def inspect(
    source: Annotated[str, typer.Argument(help="a run, a weights file, a sub-network, or a search space's name")],
    arch: ArchText = None,
    genotype: Genotype = None,
    front: Front = None,
    row: FrontRow = None,
    resolution: Resolution = None,
    space_name: SpaceName = None,
    json_only: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Show a sub-network's layers, MACs and parameters, and the size of its search space."""
    which = Which(arch, genotype, resolution, front, row)
    if is_space(source):
        space, classes = search_space(source), 1000
        chosen = which.of(space)
    else:
        from onceforall.weights.nets import open_weights
        trained = open_weights(source, space=space_name)
        space, classes, chosen = trained.space, trained.num_classes, arch_of(trained, which)
    about = _about(space, chosen, classes)
    if json_only:
        typer.echo(json.dumps(about, indent=2))
    else:
        _show(about)


def _about(space: SearchSpace, arch: Arch, classes: int) -> dict[str, Any]:
    layers = [{"name": x.name, "inputs": x.inputs, "outputs": x.outputs, "kernel": x.kernel, "stride": x.stride,
               "groups": x.groups, "size": x.size, "out_size": x.out_size, "act": x.act, "macs": layer_macs(x),
               "params": layer_params(x)} for x in lower(space, arch, classes).layers()]
    return {"space": space.name, "arch": str(arch), "genotype": arch.to_genotype(space),
            "resolution": arch.resolution, "params": params(space, arch, num_classes=classes),
            "macs": macs(space, arch, num_classes=classes), "count": space.count, "layers": layers}


def _show(about: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    # names are whole, whatever the terminal
    console = Console(soft_wrap=True, highlight=False, markup=False, width=200)
    table = Table("layer", "channels", "kernel", "map", "act", "MACs", "parameters", box=None, pad_edge=False)
    for row in about["layers"]:
        size = f"{row['size']}" if row["size"] == row["out_size"] else f"{row['size']} -> {row['out_size']}"
        table.add_row(row["name"], f"{row['inputs']} -> {row['outputs']}", f"{row['kernel']}x{row['kernel']}", size,
                      row["act"] or "", f"{row['macs']:,}", f"{row['params']:,}")
    for column in table.columns[5:]:
        column.justify = "right"
    console.print(table)
    console.print(f"\nspace       {about['space']}: {about['count']:,} sub-networks a resolution")
    console.print(f"arch        {about['arch']}")
    console.print(f"genotype    {','.join(map(str, about['genotype']))}")
    console.print(f"MACs        {about['macs']:,} at {about['resolution']} pixels")
    console.print(f"parameters  {about['params']:,}")
