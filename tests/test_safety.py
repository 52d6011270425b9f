"""What the source must not hold, read off its syntax: ways to run code from files, or to unpack them anywhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = sorted((Path(__file__).resolve().parents[1] / "src").rglob("*.py"))
MODULES = {"marshal", "shelve", "dill", "joblib", "cloudpickle", "runpy", "subprocess", "tarfile"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.spawnv", "yaml.unsafe_load",
         "yaml.full_load", "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.jit.load", "torch.hub.load",
         "shutil.unpack_archive", "tempfile.mktemp"}
METHODS = {"extractall", "extract_archive", "load_state_dict_from_url", "read_pickle"}


def faults(text: str) -> list[str]:
    """What a module does that none may, as `line: what`."""
    return [f"{node.lineno}: {what}" for node in ast.walk(ast.parse(text)) if (what := _fault(node))]


def _fault(node: ast.AST) -> str:
    if isinstance(node, ast.Import):
        return ", ".join(a.name for a in node.names if a.name.partition(".")[0] in MODULES)
    if isinstance(node, ast.ImportFrom) and node.module:
        named = {f"{node.module}.{a.name}" for a in node.names}
        return node.module if node.module.partition(".")[0] in MODULES else ", ".join(named & (CALLS | {"torch.load"}))
    if not isinstance(node, ast.Call):
        return ""
    name = ast.unparse(node.func)
    given = {k.arg: ast.unparse(k.value) for k in node.keywords}
    if name in CALLS or name.rpartition(".")[2] in METHODS:
        return name
    loose = ((name == "torch.load" and given.get("weights_only") != "True")
             or (name == "yaml.load" and "_LOADER" not in map(ast.unparse, node.args))
             or (name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False")
             or given.get("shell", "False") != "False" or given.get("allow_pickle", "False") != "False"
             or (name == "Image.open" and "formats" not in given))
    return ast.unparse(node) if loose else ""


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: "/".join(path.parts[-2:]))
def test_the_source_runs_nothing_from_files(path: Path) -> None:
    assert not faults(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", [
    "import subprocess", "from tarfile import open", "import joblib.memory", "from pickle import loads",
    "from torch import load", "eval('1')", "exec(text)", "os.system('ls')", "pickle.loads(data)", "torch.load(path)",
    "torch.load(path, weights_only=False)", "torch.load(path, weights_only=flag)", "yaml.load(text, yaml.Loader)",
    "yaml.unsafe_load(text)", "np.load(path, allow_pickle=True)", "run(words, shell=True)",
    "archive.extractall(folder)", "Image.open(path)"])
def test_each_of_these_would_be_found(text: str) -> None:
    assert faults(text)


def test_the_loader_of_yaml_is_a_safe_one() -> None:
    import yaml

    from onceforall.latency.table import _LOADER
    assert issubclass(_LOADER, (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
