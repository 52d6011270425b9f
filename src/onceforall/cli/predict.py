"""`ofa predict`: what pictures show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onceforall.cli.source import Json
from onceforall.errors import UserError

if TYPE_CHECKING:
    from onceforall.deploy.classify import Infer


def predict(
    source: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="an extracted sub-network, computed by torch, "
                                           "or an exported file, by its runtime")],
    pictures: Annotated[list[Path], typer.Argument(help="picture files, or folders of them")],
    top: Annotated[int, typer.Option(min=1, help="classes to name")] = 5,
    json_only: Json = False,
) -> None:
    """Name the likeliest classes of pictures, with their probabilities."""
    from onceforall.deploy.classify import RefusedError, lines, prepare, ranked

    infer, about = _opened(source)
    rows, broken = [], []
    for path, named in _files(pictures).items():
        try:
            logits = infer(prepare(path, about["preprocessing"], about.get("type", "float32"))[None])[0]
        except RefusedError as error:
            if named:
                broken.append(error)
            else:
                typer.echo(f"left out: {error}", err=True)
            continue
        found = ranked(logits, about["classes"], top)
        rows.append({"picture": path, "top": [{"class": name, "probability": share} for name, share in found]})
        if not json_only:
            typer.echo(lines(path, found))
    if json_only:
        typer.echo(json.dumps(rows))
    for fault in broken[:-1]:
        typer.echo(f"ofa: {fault}", err=True)
    if broken:
        raise UserError(*broken[-1].args)


def _opened(source: Path) -> tuple[Infer, dict[str, Any]]:
    from onceforall.deploy.classify import FORMS, RefusedError, ending_of, opened

    ending = ending_of(str(source))
    if source.is_file() and ending:
        package = FORMS[ending][1]
        try:
            return opened(str(source))
        except ImportError:
            raise UserError(str(source), f"needs the package {package}", f"pip install {package}") from None
        except RefusedError as error:
            raise UserError(*error.args) from None
    if not source.is_dir():
        raise UserError(str(source), f"is neither an extracted sub-network's folder nor an export ({', '.join(FORMS)})",
                        "`ofa extract` writes the folder, `ofa export` the files")
    import torch

    from onceforall.deploy.folder import open_subnet
    net, about = open_subnet(source)

    def infer(images: Any) -> Any:
        with torch.inference_mode():
            return net(torch.from_numpy(images).to(memory_format=torch.channels_last)).numpy()

    return infer, about.model_dump()


def _files(pictures: list[Path]) -> dict[str, bool]:
    """The picture files, and whether the user named each. Of a folder they are those that training would read."""
    from onceforall.data.folders import pictures_under
    from onceforall.data.found import LeftOut

    out: dict[str, bool] = {}
    for path in pictures:
        if not path.is_dir():
            out[str(path)] = True
            continue
        left = LeftOut(path)
        inside, _ = pictures_under(path, left)
        if not inside:
            raise UserError(str(path), "holds no pictures", "give picture files, or a folder of them")
        for row in left.rows:
            typer.echo(f"left out: {row}", err=True)
        out |= {name: out.get(name, False) for name in inside}
    return out
