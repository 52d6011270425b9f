"""Spellings of paths: any one of a run's data folder resumes the run, none of another folder does, moved or not."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fuzzing import FIGURES, cases, watched
from hypothesis import given
from hypothesis import strategies as st

from onceforall.data import DataSpec
from onceforall.errors import UserError
from onceforall.recipes import RECIPES, STAGES
from onceforall.training.engine.output import check_output
from onceforall.training.engine.places import read_run, write_config, write_paths
from onceforall.training.setup import Options
from onceforall.training.stage import Training

PRESET = replace(RECIPES["digits"], stages=STAGES[:2])
NUMBERS = itertools.count()
WHERE = ("home", "home/in/deep", "elsewhere", "home/link")  # working directories


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two folders, `home/d` and `home/other`, and links to the folders above them."""
    place = tmp_path_factory.mktemp("paths").resolve()
    for folder in ("home/in/deep", "elsewhere", "home/d/train", "home/other/train"):
        (place / folder).mkdir(parents=True)
    (place / "home/link").symlink_to("in")
    (place / "elsewhere/up").symlink_to(place / "home")
    before = Path.cwd()
    yield place
    os.chdir(before)


@st.composite
def spelled(draw: st.DrawFn, place: Path, target: str) -> str:
    """A path to `target`, absolute or from the working directory, with detours on the way."""
    starts = [place / "home", place / "elsewhere/up"]
    start = str(draw(st.sampled_from([*starts, *map(os.path.relpath, starts)])))
    detours = st.sampled_from(["/.", "//.", "/in/..", "/in/deep/../..", "/d/..", "/other/train/../.."])
    path = start + "".join(draw(st.lists(detours, max_size=3))) + f"/{target}"
    return path + draw(st.sampled_from(["", "/", "/.", "//"]))


def _trainings(data: str, run: str) -> dict[str, Training]:
    """Two stages as `ofa fit` has them."""
    return PRESET.recipe(DataSpec("folder", root=data), num_classes=2).trainings(Path(run))


@pytest.mark.slow
@cases(40)
@given(data=st.data())
def test_spellings(place, data):
    run = f"run{next(NUMBERS)}"
    os.chdir(place / data.draw(st.sampled_from(WHERE)))
    begun = data.draw(spelled(place, run))
    for folder, training in _trainings(data.draw(spelled(place, "d")), begun).items():
        Path(begun, folder).mkdir(parents=True)
        (Path(begun) / folder / "weights.safetensors").write_bytes(b"")
        write_paths(training, Path(begun) / folder)
        write_config(training, Path(begun) / folder)
    if data.draw(st.booleans()):
        run = shutil.move(place / "home" / run, place / "home" / f"moved{run}").name
    os.chdir(place / data.draw(st.sampled_from(WHERE)))
    again = data.draw(spelled(place, run))
    with watched():
        for folder, training in _trainings(data.draw(spelled(place, "d")), again).items():
            check_output(training, Path(again) / folder, Options())
            assert Path(read_run(Path(again) / folder).data.root or "").samefile(place / "home/d")
        FIGURES.accepted += 1
    with watched():
        folder, training = next(iter(_trainings(data.draw(spelled(place, "other")), again).items()))
        with pytest.raises(UserError, match=r"data\.root is .* there, and .*other.* is asked for"):
            check_output(training, Path(again) / folder, Options())
        FIGURES.refused += 1
    shutil.rmtree(place / "home" / run)
