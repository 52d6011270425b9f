"""The rooms: imports point down the list only, and space never imports torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import onceforall

ROOT = Path(onceforall.__file__).parent
ROOMS = ["testing", "cli", "report", "api", "recipes", "run", "interop", "pretrained", "deploy", "searching",
         "training", "latency", "cost", "data", "weights", "nn", "space"]  # `api` and `run` are files
GROUND = ["errors", "files", "functions", "problems"]  # what every room may import


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else (
            [node.module] if isinstance(node, ast.ImportFrom) and node.module and node.level == 0 else [])
        found |= {name for name in names if name}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return found


FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.stem in ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert room in ROOMS, f"{room} is not a room of docs/architecture.md"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "onceforall":
            continue
        assert len(parts) > 1 or room == "cli", f"{path} imports the whole package"
        if len(parts) > 1:
            allowed = GROUND + ROOMS[ROOMS.index(room):]
            assert parts[1] in allowed, f"{path} imports {name}, a room above its own"


@pytest.mark.parametrize("name", GROUND)
def test_the_ground_stands_on_itself(name: str) -> None:
    assert {other for other in imports(ROOT / f"{name}.py") if other.startswith("onceforall")} <= {
        f"onceforall.{below}" for below in GROUND}


@pytest.mark.parametrize("path", [p for p in FILES if p.relative_to(ROOT).parts[0] == "space"], ids=lambda p: p.name)
def test_space_is_pure_python(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"torch", "numpy", "torchvision"}


def test_importing_the_package_leaves_torch_alone() -> None:
    code = "import sys, onceforall; onceforall.search_space('mobilenet_v3_large'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


WITHOUT = """
import ctypes, importlib, importlib.util, pkgutil, sys
sys.modules |= dict.fromkeys(("fcntl", "resource", "termios", "pwd", "grp"))  # as on Windows
import torch, torchvision, onceforall
def no_library(*_, **__):
    raise OSError
ctypes.CDLL = no_library
optional = ("deploy.to_executorch", "deploy.to_openvino", "deploy.to_litert", "deploy.to_ncnn", "nn.litert_graph")
for module in pkgutil.walk_packages(onceforall.__path__, "onceforall."):
    if not module.name.endswith(optional):
        importlib.import_module(module.name)
from onceforall.training.engine.memory import keep_large_blocks
assert keep_large_blocks() is False
"""


def test_every_module_is_imported_without_what_unix_has() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    for name in onceforall.__all__:
        assert getattr(onceforall, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = onceforall.nothing


FOREIGN_WORDS = ("_gamma", "op_candidates", "depth_candidates", "mobile_inverted_conv", "lambda_kd", "hparams",
                 "no_decay_keys", "OFASearcher", "OFATrainer", "genotype")


BORDER = ("interop", "cli", "space/arch.py")  # the last reads and writes foreign forms for users, by `interop`


@pytest.mark.parametrize("path", [p for p in FILES if not p.relative_to(ROOT).as_posix().startswith(BORDER)],
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_foreign_words_stay_at_the_border(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [word for word in FOREIGN_WORDS if word in text]
