"""The options that say which pretrained network a run starts from, and what becomes elastic of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from onceforall.cli.source import numbers_of, sizes_of

if TYPE_CHECKING:
    from onceforall.pretrained.table import Choices

KERNELS, RATIOS = 3, "0.5,0.667,1"
Start = Annotated[str | None, typer.Option("--from", help="pretrained network to start from: timm:NAME, "
                                           "torchvision:NAME, efficientnet_lite0, or a file of weights")]
Sizes = Annotated[str | None, typer.Option(help="sizes of pictures for a pretrained network in pixels, as 64,96,128")]
Kernels = Annotated[int, typer.Option(help="the smallest kernel of a pretrained network")]
Ratios = Annotated[str, typer.Option(help="shares of a block's hidden channels in a pretrained network")]
Depth = Annotated[int | None, typer.Option(help="the least blocks of a stage in a pretrained network; 1, or 2 where "
                                           "it has more than 4, by default")]
Unlabelled = Annotated[str | None, typer.Option(help="folder of further pictures without labels, which the teacher "
                                                "labels")]


def sizes_or_own(text: str | None) -> tuple[int, ...] | None:
    """What --sizes names; None where it is not given."""
    return None if text is None else sizes_of(text, "--sizes")


def choices_of(kernels: int, ratios: str, depth: int | None) -> Choices:
    """What --kernels, --ratios and --depth name; raises UserError for a text that is no list of shares."""
    from onceforall.pretrained.table import Choices

    return Choices(kernels, numbers_of("--ratios", ratios, float, what="shares", example="0.5,1"), depth)
