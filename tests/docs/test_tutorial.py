"""The documentation agrees with the code: commands parse, JSON is accepted, tables and messages are true."""

from __future__ import annotations

import copy
import json
import logging
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from onceforall.cli import main
from onceforall.cli.app import app
from onceforall.cost import macs, params
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config, Hparams, checked, no_decay_patterns, subnet_arch
from onceforall.interop.nnabla.names import entries
from onceforall.interop.nnabla.settings import training_of
from onceforall.recipes import RECIPES, STAGES
from onceforall.space import lower, search_space
from onceforall.training.engine.output import difference
from onceforall.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "classification" / "ofa"
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
         for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
LAUNCHERS = {"mpirun", "torchrun", "srun"}
SPACE = search_space("mobilenet_v3_large")
JOBS = [line for line in (EXAMPLES / "jobs.sh").read_text(encoding="utf-8").splitlines() if line.startswith("mpirun")]
STAGE_ROWS = ("fullnet", "kernel", "depth 1", "depth 2", "expand 1", "expand 2", "subnet")


def example(name: str) -> dict[str, Any]:
    """The JSON of a shipped configuration, such as `search_kernel`."""
    return dict(json.loads((EXAMPLES / f"ofa_imagenet_{name}.json").read_text(encoding="utf-8")))


def fences(text: str, language: str | None = None) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for name, body in found if language in (None, name)]


def code_lines(text: str) -> list[str]:
    """The lines of fenced and of indented blocks, those that end in a backslash joined."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = [*fences(text), *re.findall(r"(?:^    .*\n)+", outside, re.MULTILINE)]
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def commands(text: str) -> list[list[str]]:
    """The arguments after `ofa`, or `train` and those after `main.py`, of every command line in the code blocks."""
    found = []
    for line in code_lines(text):
        for part in re.split(r"&&|[;|]", line.removeprefix("$ ")):
            words = part.split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            if not words or words[0] not in {"ofa", "python", "python3", *LAUNCHERS}:
                continue
            words = shlex.split(part, comments=True)
            if "main.py" in words:
                found.append(["train", *words[words.index("main.py") + 1:]])
            elif "ofa" in words:
                found.append(words[words.index("ofa") + 1:])
    return found


def table(text: str, *columns: str) -> list[list[str]]:
    """The rows of the one Markdown table with these columns, as stripped cells."""
    head = re.escape("| " + " | ".join(columns) + " |\n")
    bodies = re.findall(rf"^{head}\|[-|]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    assert len(bodies) == 1, f"{len(bodies)} tables with the columns {columns}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in bodies[0].splitlines()]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def leaves(value: Any, place: str = "") -> dict[str, Any]:
    """Dotted path to value, for everything that is no object."""
    if not isinstance(value, dict):
        return {place: value}
    return {path: leaf for key, entry in value.items()
            for path, leaf in leaves(entry, f"{place}.{key}" if place else key).items()}


def merged(base: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of a fragment; a data set or network of the fragment replaces the base's."""
    out = dict(base)
    for key, value in part.items():
        whole = key in ("dataloader", "network", "teacher_network") or not isinstance(value, dict)
        out[key] = value if whole else merged(base.get(key, {}), value)
    return out


# commands

def test_commands_are_found_in_the_pages() -> None:
    assert len(commands(PAGES["docs/tutorial.md"])) >= 20
    assert len(commands(PAGES["README.md"])) >= 4
    assert ["fit"] in commands(PAGES["docs/results.md"])


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_parse(page: str) -> None:
    group: Any = typer.main.get_command(app)
    for words in commands(PAGES[page]):
        known = [word for word in words if word != "--debug"]
        assert known and known[0] in group.commands, words
        if "--help" not in known:
            group.commands[known[0]].make_context(known[0], known[1:])


@pytest.mark.parametrize("page", PAGES)
def test_configuration_files_exist(page: str) -> None:
    dumped = {f"{words[words.index('--dump-configs') + 1]}/{stage.folder}.json"
              for words in commands(PAGES[page]) if "--dump-configs" in words for stage in STAGES}
    for words in commands(PAGES[page]):
        for option in {"-f", "--config-file"} & set(words):
            path = words[words.index(option) + 1]
            assert path in dumped or (ROOT / path).is_file(), path


def test_the_seven_commands_stand_word_for_word() -> None:
    assert len(JOBS) == 7
    assert "\n".join(JOBS) in [block.strip() for block in fences(TUTORIAL, "sh")]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        assert ((ROOT / page).parent / path).exists(), target
        headings = [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-")
                    for h in re.findall(r"^#+ (.*)$", PAGES[page], re.MULTILINE)]
        assert not anchor or path or anchor in headings, target


# JSON and configurations

@pytest.mark.parametrize("text", fences(TUTORIAL, "json"))
def test_json_is_a_configuration_or_part_of_one(text: str) -> None:
    part = json.loads(text)
    trainer = "genotype" in text
    config = Config.from_dict(merged(example("train_subnet" if trainer else "search_kernel"), part))
    checked(config, "OFATrainer" if trainer else "OFASearcher", search=not trainer)


def test_network_sections_are_those_of_the_files() -> None:
    shown = [json.loads(text)["network"] for text in fences(TUTORIAL, "json") if '"network"' in text]
    assert shown == [example("search_kernel")["network"], example("train_subnet")["network"]]


def test_every_key_of_the_kernel_configuration_is_explained() -> None:
    wanted = leaves(example("search_kernel"))
    found: dict[str, str] = {}
    for keys, value, meaning in table(TUTORIAL, "key", "value", "meaning"):
        assert meaning
        for key in quoted(keys):
            assert key not in found, f"{key} is explained twice"
            found[key] = value
    assert found.keys() == wanted.keys()
    for key, value in found.items():
        if quoted(value):
            assert json.loads(quoted(value)[0]) == wanted[key], key
    assert {key for key, value in found.items() if not quoted(value)} == {
        "hparams.valid_genotypes", "hparams.input_shapes", "hparams.target_shapes"}


def test_what_the_key_table_says_of_validation_and_decay() -> None:
    config = Config.from_dict(example("search_kernel"))
    names = config.network.op_candidates
    assert config.hparams.valid_genotypes == tuple((i,) * SPACE.slots for i in range(3))
    assert names == ("MB6 7x7", "MB6 5x5", "MB6 3x3")
    stage = SPACE.restrict(expand=(6,), depth=(4,))
    arrays = [e.theirs for e in entries(lower(stage, stage.largest, 1000), stage) if e.trained]
    exempt = [name for name in arrays if any(p.search(name) for p in no_decay_patterns(config))]
    assert f"{len(exempt)} of {len(arrays)} arrays" in TUTORIAL
    ignored = " ".join(config.ignored("OFASearcher"))
    assert "hparams.input_shapes" in ignored and "hparams.target_shapes" in ignored


# the stage table

def stage_rows() -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in table(
        TUTORIAL, "stage", "kernels", "expand", "depth", "sub-networks a step (authors)", "epochs + warm-up", "lr",
        "global batch", "teacher")}


def test_stage_table_has_the_seven_rows() -> None:
    assert tuple(stage_rows()) == STAGE_ROWS


@pytest.mark.parametrize(("row", "job"), list(zip(STAGE_ROWS, JOBS, strict=True)))
def test_stage_table_agrees_with_the_configuration(row: str, job: str) -> None:
    words = shlex.split(job)
    config = Config.read(ROOT / words[words.index("-f") + 1])
    kernels, expand, depth, _, epochs, lr, batch, teacher = stage_rows()[row]
    hparams = config.hparams
    if row == "subnet":
        assert (kernels, expand, depth) == ("its genotype", "", "") and subnet_arch(config) is not None
    else:
        operators = {(int(k), int(e)) for k in kernels.split() for e in expand.split()}
        assert operators == {(int(name[-1]), int(name[2])) for name in config.network.op_candidates}
        assert sorted(map(int, depth.split())) == sorted(config.network.depth_candidates)
    main_part, _, warmup = epochs.partition(" + ")
    assert (int(main_part) + int(warmup or 0), int(warmup or 0)) == (hparams.epoch, hparams.cosine_warmup_epoch)
    assert float(lr) == config.optimizer.train.lr
    assert int(batch) == hparams.batch_size_train * int(words[words.index("-n") + 1])
    assert teacher == ("none" if config.teacher is None else "full net")
    assert hparams.subnets_per_step == 1, "the text says so of all configurations"


def test_stage_table_agrees_with_the_recipes() -> None:
    rows = list(stage_rows().values())
    for row, stage in zip(rows, STAGES, strict=False):
        assert [tuple(map(int, cell.split())) for cell in row[:3]] == [stage.kernel, stage.expand, stage.depth]
    assert [int(row[3]) for row in rows] == [*RECIPES["imagenet"].subnets, 1]


def test_what_may_change_before_resuming() -> None:
    listed = re.search(r"precision and configuration, (.*?) aside", " ".join(TUTORIAL.split()))
    changes = {"workers": 1, "download": True, "print_frequency": 7, "checkpoint_every": 3.0, "setbacks": 1,
               "checkpoint_every_steps": 9, "setback_rate": 0.25, "setback_clip": 1.0}
    assert listed is not None and set(quoted(listed[1])) == changes.keys()
    before = example("search_fullnet")
    for key, value in {**changes, "seed": 3, "train_portion": 0.5}.items():
        after = example("search_fullnet")
        section = after["hparams"] if key in Hparams.model_fields else after["dataloader"]["imagenet"]
        section[key] = value
        two = [training_of(Config.from_dict(values), search=True).to_dict() for values in (before, after)]
        assert two[0] != two[1] and (not difference(*two)) == (key in changes), key
    assert f"{Config.from_dict(example('search_kernel')).hparams.calibration_images:,} by default" in TUTORIAL


# figures about the network

def subnet_config() -> Config:
    return Config.from_dict(example("train_subnet"))


def test_decoded_genotype() -> None:
    config = subnet_config()
    network, arch = config.network, subnet_arch(config)
    assert arch is not None and network.genotype is not None
    plan = lower(SPACE, arch, network.num_classes)
    genes = iter(network.genotype)
    wanted = []
    for s, stage in enumerate(SPACE.stages):
        for b in range(max(stage.depth)):
            gene, cells = next(genes), ["skipped", "", ""]
            if b < arch.depths[s]:
                block = plan.stages[s][b]
                widths = (block["expand"].inputs, block["depthwise"].outputs, block["project"].outputs)
                cells = [network.op_candidates[gene], " → ".join(map(str, widths)), str(block["depthwise"].stride)]
            wanted.append([str(s + 1), str(b + 1), str(gene), *cells])
    assert table(TUTORIAL, "stage", "slot", "gene", "operator", "channels", "stride") == wanted
    assert f"The depths are {', '.join(map(str, arch.depths))}." in TUTORIAL
    assert f"`{arch}`" in re.sub(r"\n", " ", TUTORIAL)
    assert f'--genotype "{",".join(map(str, network.genotype))}"' in TUTORIAL


def test_costs_and_counts() -> None:
    tutorial = subnet_arch(subnet_config())
    assert tutorial is not None
    rows = table(TUTORIAL, "sub-network", "MACs", "parameters")
    for row, arch in zip(rows, (SPACE.smallest.at(224), tutorial, SPACE.largest), strict=True):
        assert row[1:] == [f"{macs(SPACE, arch):,}", f"{params(SPACE, arch):,}"]
    text = " ".join(TUTORIAL.split())
    assert f"has {rows[1][1]} MACs and {rows[1][2]} parameters" in text
    share = [round(100 * cost(SPACE, tutorial) / cost(SPACE, SPACE.largest)) for cost in (macs, params)]
    assert f"{share[0]} % and {share[1]} % of the largest" in text
    stage = sum(9 ** d for d in (2, 3, 4))
    assert SPACE.count == stage ** 5 > 10 ** 19
    assert f"= {stage:,}; five stages have {stage}⁵ = {SPACE.count:,} sub-networks" in text
    assert f"any of {len(SPACE.resolutions)} resolutions" in text
    matrices = SPACE.slots * (25 ** 2 + 9 ** 2)
    assert f"{matrices:,} parameters" in text and "25x25" in text and "9x9" in text
    ends = min(SPACE.resolutions), max(SPACE.resolutions)
    assert f"{ends[0]} to {ends[1]} pixels in steps of 4" in text and SPACE.resolutions == tuple(range(128, 225, 4))
    assert [s.se for s in SPACE.stages].count(True) == 3 and "three of the stages with squeeze" in text


@pytest.mark.parametrize("words", [words for block in fences(TUTORIAL, "sh")
                                   for words in commands(f"```\n{block}```\n") if "mobilenet_v3_large" in words])
def test_inspect_commands_run(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--json"])
    assert caught.value.code == 0
    assert f"{json.loads(capsys.readouterr().out)['macs']:,}" in TUTORIAL


# error messages

def broken(change: str) -> tuple[dict[str, Any], bool]:
    """A configuration with one mistake, `hparams.epoch: "125"` or `no hparams.task`; and whether it is OFATrainer's."""
    path, _, value = change.removeprefix("no ").partition(": ")
    trainer = "genotype" in path
    config = copy.deepcopy(example("train_subnet" if trainer else "search_kernel"))
    *way, last = [int(part) if part.isdigit() else part for part in re.findall(r"\w+", path)]
    place: Any = config
    for key in way:
        place = place[key]
    if change.startswith("no "):
        del place[last]
    else:
        place[last] = json.loads(value)
    return config, trainer


@pytest.mark.parametrize(("change", "message"), [
    (quoted(row[0])[0], quoted(row[1])[0]) for row in table(TUTORIAL, "in the file", "what it says")])
def test_configuration_mistakes_say_this(change: str, message: str) -> None:
    config, trainer = broken(change)
    with pytest.raises(UserError) as caught:
        checked(Config.from_dict(config), "OFATrainer" if trainer else "OFASearcher", search=not trainer)
    assert str(caught.value) == message


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with main.py and the examples, but without weights; the log's handlers stay as they were."""
    shutil.copytree(EXAMPLES, tmp_path / EXAMPLES.relative_to(ROOT))
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    logger = logging.getLogger("onceforall")
    handlers, level = list(logger.handlers), logger.level
    yield tmp_path
    logger.handlers[:] = handlers
    logger.setLevel(level)


def quoted_runs() -> list[tuple[str, str]]:
    """Command and message of each pair of lines in the console blocks."""
    lines = [line for block in fences(TUTORIAL, "console") for line in block.splitlines()]
    return list(zip(lines[::2], lines[1::2], strict=True))


@pytest.mark.parametrize(("command", "message"), quoted_runs())
def test_command_line_mistakes_say_this(elsewhere: Path, capsys: pytest.CaptureFixture[str], command: str,
                                        message: str) -> None:
    words = commands(f"```\n{command}\n```\n")[0]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.strip() == message.replace("/home/me", str(Path.cwd()))
    assert [path.name for path in elsewhere.iterdir()] == ["examples"], "nothing is written"


# the figure

def test_figure_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    script, path = ROOT / "docs" / "figures" / "progressive_shrinking.py", tmp_path / "figure.png"
    monkeypatch.setattr(sys, "argv", [str(script), str(path)])
    runpy.run_path(str(script), run_name="__main__")
    committed = script.with_suffix(".png")
    for file in (path, committed):
        with Image.open(file) as image:
            assert image.size == (1800, 1100)
            colours = image.convert("RGB").resize((90, 55)).getcolors(90 * 55)
        assert colours is not None and len(colours) > 100, "the picture is nearly empty"
        assert 20_000 < file.stat().st_size < 400_000


def test_the_recipe_of_the_page() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
    recipe = Recipe.from_dict(yaml.safe_load(text))
    full, every = recipe.trainings(Path("run")).values()
    assert full.part.count == 1 and every.part.count == recipe.network.space.count
    assert every.teacher is not None and every.teacher.network.weights == "run/full/weights.safetensors"
