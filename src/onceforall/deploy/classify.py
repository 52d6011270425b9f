"""Tells what pictures show, with an exported file. Python 3.8, numpy, pillow and a runtime are all it needs.

    python classify.py model.onnx picture.jpg ...
    python classify.py model.onnx --accuracy FOLDER    (top-1 over FOLDER/<class>/*)
    python classify.py model.onnx --selftest           (the pictures in `selftest` beside it)

The packages that runtimes come in: onnxruntime for .onnx, ai-edge-litert for .tflite, ncnn for .param (which needs
model.json beside it), openvino for .xml, torch and executorch for .pte. Torch alone opens .pt2: it may run code.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import stat
import struct
import sys
import unicodedata
import zlib
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    Values = dict[str, Any]
    Infer = Callable[[np.ndarray], np.ndarray]
    # what runs images; their shape, 0 for any batch; names of input and output; what the file says of itself
    Opened = tuple[Infer, tuple[Any, ...], tuple[str, str], Values]

_NAME = "onceforall"  # of the metadata
SELFTEST, EXPECTED = "selftest", "expected.json"
_MAX_RATIO = 16
_FILTERS = {"bilinear, antialiased": Image.Resampling.BILINEAR, "bicubic, antialiased": Image.Resampling.BICUBIC}
_MAX_PIXELS, _MAX_SIDE, _MAX_BATCH = 89_478_485, 65_536, 4096
_POINTER = b"version https://git-lfs.github.com/spec/"
# Pillow hands others (EPS) to other programs
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM",
            *(["AVIF"] if find_spec("PIL.AvifImagePlugin") else []))
_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
            ".pnm", *([".avif"] if "AVIF" in _FORMATS else []))
_FOLDER = "give a folder with <class>/* in it"
# what makes a stored picture upright, by its EXIF tag, and whether that mirrors the axes across and down
_Turn, _ORIENTATION = Image.Transpose, 0x0112
_TURNS = {2: (_Turn.FLIP_LEFT_RIGHT, 1, 0), 3: (_Turn.ROTATE_180, 1, 1), 4: (_Turn.FLIP_TOP_BOTTOM, 0, 1),
          5: (_Turn.TRANSPOSE, 0, 0), 6: (_Turn.ROTATE_270, 1, 0), 7: (_Turn.TRANSVERSE, 1, 1),
          8: (_Turn.ROTATE_90, 0, 1)}
_DEPTH = {"uint16": 65535.0, "int32": 65535.0, "float32": 255.0}  # of files that were written before they said it
_FAR_OUTSIDE = 0.01  # of a picture's pixels may be
# the key "location" of numbers that an ONNX file leaves to another file, as protobuf writes a text
_ELSEWHERE = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
# whatever Pillow's plug-ins raise on damaged bytes
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
           NotImplementedError, AttributeError, AssertionError, struct.error, zlib.error,
           Image.DecompressionBombError)


class RefusedError(ValueError):
    """A user's mistake: place, problem and remedy, which a message puts on one line."""

    def __str__(self) -> str:
        place, problem, remedy = self.args
        return printable(f"{place}: {problem}; {remedy}")


def printable(text: str) -> str:
    """Text on one line that no terminal obeys."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def prepare(path: str, preprocessing: Values, kind: str = "float32") -> np.ndarray:
    """A picture file as the net's input (3, crop, crop): see `onceforall.deploy.description.Preprocessing`.

    Of the kind "uint8" it is the picture's bytes (crop, crop, 3), not normalised. Raises RefusedError for a file that
    is no picture.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for, a device read without end
            raise ValueError("not a file")
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} is more than {_MAX_PIXELS} pixels")
            if image.format not in ("JPEG", "MPO"):
                image.load()  # the EXIF data may follow the pixels; a TIFF is turned by Pillow itself
            scaled = _scaled(image, preprocessing)
    except _DAMAGE as error:
        raise RefusedError(path, f"cannot be read as a picture ({' '.join(str(error).split())})",
                           "leave it out") from None
    crop = preprocessing["crop"]
    top, left = (round((extent - crop) / 2) for extent in scaled.shape[:2])
    values = scaled[top:top + crop, left:left + crop]
    if kind == "uint8":
        return np.asarray(np.rint(values), np.uint8)
    values = values / np.float32(255)
    values = (values - np.float32(preprocessing["mean"])) / np.float32(preprocessing["std"])
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _scaled(image: Image.Image, preprocessing: Values) -> np.ndarray:
    """Pixels (H, W, 3) in 0..255, upright, the shorter side as asked for; of extreme shapes only the middle."""
    shorter, rounded = preprocessing["resize_shorter_side"], preprocessing["rounded"]
    resample = _FILTERS[preprocessing["interpolation"]]
    tag = _orientation(image)
    turn, across, down = _TURNS.get(tag, (None, 0, 0))
    width, height = image.size if tag < 5 else image.size[::-1]
    cut_width = min(width, max(1, round(height * _MAX_RATIO)))
    cut_height = min(height, max(1, round(width * _MAX_RATIO)))
    left, top = (width - cut_width) // 2, (height - cut_height) // 2
    box = np.array([left, top, left + cut_width, top + cut_height], float)
    longer = shorter * max(cut_width, cut_height) // min(cut_width, cut_height)
    size = (shorter, longer) if cut_width <= cut_height else (longer, shorter)
    factor, shrink = 1.0, min(cut_width / size[0], cut_height / size[1])
    if rounded and shrink >= 2:  # a JPEG is decoded at half, a quarter or an eighth of its size
        stored, wanted = image.size, (ceil(width / shrink), ceil(height / shrink))
        drafted = image.draft(None, wanted if tag < 5 else wanted[::-1])
        factor = drafted[1][2] / stored[0] if drafted else 1.0
    rgb = _rgb(image, preprocessing.get("depth", _DEPTH))
    upright = rgb if turn is None else rgb.transpose(turn)
    # a reduced picture ends within its last pixel, which a turn brings to the front
    box = box * factor + [across * (upright.width - width * factor), down * (upright.height - height * factor)] * 2
    if rounded:
        return np.asarray(upright.resize(size, resample, box=tuple(box), reducing_gap=2.0), np.float32)
    channels = (channel.convert("F").resize(size, resample, box=tuple(box)) for channel in upright.split())
    return np.stack([np.asarray(channel) for channel in channels], axis=-1).clip(0, 255)


def _orientation(image: Image.Image) -> int:
    """The EXIF tag, 1 where there is none or it is damaged."""
    try:
        tag = 1 if image.format == "TIFF" else Image.Image.getexif(image).get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return tag if tag in _TURNS else 1


def _rgb(image: Image.Image, depth: Values) -> Image.Image:
    """Eight bits a channel: the first frame, transparency dropped; of deeper pixels the level that `depth` names for
    their type becomes white."""
    if image.mode == "F" or image.mode.startswith("I"):
        levels = np.array(image, np.float32)
        levels[~np.isfinite(levels)] = 0
        kind = "float32" if image.mode == "F" else "int32" if (image.mode, image.format) == ("I", "TIFF") else "uint16"
        white = float(depth[kind])
        black = -white / 8 if kind == "float32" else 0  # resampling leaves floats below 0
        if np.mean((levels < black) | (levels > 2 * white)) > _FAR_OUTSIDE:
            raise ValueError(f"its levels reach from {levels.min():g} to {levels.max():g}, where 0 is black and "
                             f"{white:g} white")
        levels /= white / 255  # in place: a picture may be large
        image = Image.fromarray(levels.round(out=levels).clip(0, 255, out=levels).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _content(path: str) -> bytes:
    """The bytes of an exported file, which are not those of a pointer to it."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise RefusedError(path, f"cannot be read ({error.strerror})", "give an exported file that can") from None
    if content.startswith(_POINTER):
        raise RefusedError(path, "is a pointer of Git LFS, not the file itself", "`git lfs pull` fetches the file")
    return content


def ending_of(path: str) -> str:
    """The ending by which `FORMS` knows a file, empty where it knows none."""
    return next((ending for ending in FORMS if path.lower().endswith(ending)), "")


def opened(path: str) -> tuple[Infer, Values]:
    """What an exported file answers to pictures as `prepare` makes them, as logits, and what it says of itself.

    Raises:
        RefusedError: the file is no export that runs here.
        ImportError: its runtime is missing.
    """
    if not ending_of(path):
        raise RefusedError(path, "is no export", f"give a file named *{', *'.join(FORMS)}")
    form, _, module, reader = FORMS[ending_of(path)]
    target, runtime, content = form.lower(), import_module(module), _content(path)
    try:
        run, source, names, about = reader(runtime, path, content)
        _check(about, source, names)
    except (KeyError, json.JSONDecodeError):
        raise RefusedError(path, "does not say how to feed it", f"`ofa export --to {target}` writes one that does"
                           ) from None
    except Exception as error:  # noqa: BLE001  # the runtimes' own have no common class
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise RefusedError(path, f"is no {form} file that runs here ({problem})",
                           f"`ofa export --to {target}` writes one") from None
    batch = source[0]

    def infer(images: np.ndarray) -> np.ndarray:
        given = run(images) if not batch else _in_batches(run, images, batch)
        return given if about["output"] != "probabilities" else np.log(np.maximum(given, np.finfo(np.float32).tiny))

    return infer, about


def _in_batches(run: Infer, images: np.ndarray, batch: int) -> np.ndarray:
    padded = np.concatenate([images, np.zeros((-len(images) % batch, *images.shape[1:]), images.dtype)])
    return np.concatenate([run(padded[i:i + batch]) for i in range(0, len(padded), batch)])[:len(images)]


def _onnx(ort: Any, path: str, content: bytes) -> Opened:
    if _ELSEWHERE.search(content):
        raise ValueError("it leaves its numbers to other files")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map[_NAME])
    (source, *_), (target, *_) = session.get_inputs(), session.get_outputs()
    batch, *shape = source.shape

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run([target.name], {source.name: images})[0])

    return run, (batch if isinstance(batch, int) else 0, *shape), (source.name, target.name), about


def _litert(runtime: Any, _path: str, content: bytes) -> Opened:
    interpreter = runtime.Interpreter(model_content=content)
    schema = import_module("ai_edge_litert.schema_py_generated")
    model = schema.Model.GetRootAs(content)
    found = {model.Metadata(i).Name(): model.Metadata(i).Buffer() for i in range(model.MetadataLength())}
    about = json.loads(bytes(model.Buffers(found[_NAME.encode()]).DataAsNumpy()))
    (source, *_), (target, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    batch, height, width, channels = (int(side) for side in source["shape_signature"])
    shape = (height, width, channels) if source["dtype"] == np.uint8 else (channels, height, width)
    return litert_run(interpreter), (max(batch, 0), *shape), (source["name"], target["name"]), about


def litert_run(interpreter: Any) -> Infer:
    """Images (B, 3, H, W), or bytes (B, H, W, 3), to what a file answers (B, classes), by LiteRT's interpreter."""
    (source, *_), (target, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    ready = 0  # the batch that it has room for

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal ready
        rows = channels_last(images)
        if len(rows) != ready:
            interpreter.resize_tensor_input(source["index"], rows.shape)
            interpreter.allocate_tensors()
            ready = len(rows)
        interpreter.set_tensor(source["index"], rows)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(target["index"]))

    return run


def channels_last(images: np.ndarray) -> np.ndarray:
    """Images (B, H, W, 3), of those (B, 3, H, W), or of bytes, which are so already."""
    return np.ascontiguousarray(images if images.dtype == np.uint8 else images.transpose(0, 2, 3, 1))


def _ncnn(runtime: Any, path: str, content: bytes) -> Opened:
    word, _, _, _, _, *sides = content.decode("ascii").splitlines()[2].split()
    if word != "Input":
        raise ValueError("it does not begin with its input")
    width, height, channels = (int(side.partition("=")[2]) for side in sides)
    about = json.loads(Path(path).with_name("model.json").read_text(encoding="utf-8"))
    made = about["exports"][os.path.basename(path)]
    return ncnn_run(runtime, path), (1, channels, height, width), (made["input"], made["output"]), {**about, **made}


def ncnn_run(runtime: Any, path: str, threads: int = 0) -> Infer:
    """Images (B, 3, H, W) to what a file answers (B, classes), one after another, by ncnn.

    Numbers of 32 bits are computed with as they are; otherwise as ncnn prefers on this processor.
    """
    numbers = path[:-len("param")] + "bin"
    with open(numbers, "rb") as file:
        whole = file.read(4) == bytes(4)  # what stands before weights of 32 bits
    net = runtime.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads or net.opt.num_threads
    if whole:
        for name in dir(net.opt):
            if name.startswith(("use_fp16_", "use_bf16_")):
                setattr(net.opt, name, False)
    if net.load_param(path) or net.load_model(numbers):
        raise ValueError("ncnn cannot load it")
    (source,), (target,) = net.input_names(), net.output_names()

    def run(images: np.ndarray) -> np.ndarray:
        rows = []
        for image in images:
            extractor = net.create_extractor()
            extractor.input(source, runtime.Mat(np.ascontiguousarray(image)).clone())  # ncnn may write in a map
            failed, out = extractor.extract(target)
            if failed:
                raise ValueError("ncnn cannot compute it")
            rows.append(np.array(out))
        return np.stack(rows)

    return run


def _openvino(runtime: Any, path: str, _content: bytes) -> Opened:
    core = _core(runtime)
    model = core.read_model(path)
    if not model.has_rt_info([_NAME]):
        raise KeyError(_NAME)
    about = json.loads(model.get_rt_info([_NAME]).astype(str))
    net = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # some processors take bfloat16
    (source,), (target,) = net.inputs, net.outputs
    batch, *shape = source.partial_shape
    sizes = (0 if batch.is_dynamic else batch.get_length(), *(side.get_length() for side in shape))
    return (lambda images: np.array(net(images)[0])), sizes, (source.any_name, target.any_name), about


@lru_cache(maxsize=None)  # noqa: UP033  # Python 3.8
def _core(runtime: Any) -> Any:
    """OpenVINO's Core. It stays, since two that are dropped break the handling of signals (OpenVINO 2026.4)."""
    return runtime.Core()


def _executorch(runtime: Any, path: str, _content: bytes) -> Opened:
    program, torch = runtime.Runtime.get().load_program(path), import_module("torch")
    about = json.loads(program.load_method(_NAME).execute([])[0])
    method = program.load_method("forward")

    def run(images: np.ndarray) -> np.ndarray:
        return np.array(method.execute([torch.from_numpy(np.ascontiguousarray(images))])[0].numpy())

    return run, tuple(method.metadata.input_tensor_meta(0).sizes()), (about["input"], about["output"]), about


# a file's ending: the form, the package that its runtime comes in, the runtime's module, and what opens the file
FORMS = {".onnx": ("ONNX", "onnxruntime", "onnxruntime", _onnx),
         ".tflite": ("LiteRT", "ai-edge-litert", "ai_edge_litert.interpreter", _litert),
         ".ncnn.param": ("ncnn", "ncnn", "ncnn", _ncnn),
         ".xml": ("OpenVINO", "openvino", "openvino", _openvino),
         ".pte": ("ExecuTorch", "executorch", "executorch.runtime", _executorch)}


def _check(about: Values, source: tuple[Any, ...], names: tuple[str, str]) -> None:
    """Refuse what no export says, before pictures are scaled to any size it asks for.

    `source`: batch, 0 for any; channels, height and width, of bytes height, width and channels. `names`: of the input
    and the output.
    """
    pre, (batch, *shape) = about["preprocessing"], source
    sides, colours = (pre["crop"], pre["resize_shorter_side"]), [*pre["mean"], *pre["std"]]
    depth = pre.get("depth", _DEPTH)
    shapes = {"float32": [3, sides[0], sides[0]], "uint8": [sides[0], sides[0], 3]}
    if not (all(type(side) is int and 1 <= side <= _MAX_SIDE for side in sides) and sides[0] <= sides[1]
            and shape == shapes[about.get("type", "float32")] and 0 <= batch <= _MAX_BATCH
            and len(colours) == 6 and np.isfinite(np.array(colours, float)).all() and isinstance(pre["rounded"], bool)
            and pre["interpolation"] in list(_FILTERS)
            and depth.keys() == _DEPTH.keys() and all(0 < float(white) < np.inf for white in depth.values())
            and all(isinstance(name, str) for name in about["classes"])
            and (about["input"], about["output"]) == names):
        raise ValueError("what it says of its input is not so")


def shares_of(logits: np.ndarray) -> np.ndarray:
    """The probabilities of logits (classes,)."""
    powers = np.exp(logits - logits.max(), dtype=np.float64)
    return np.asarray(powers / powers.sum())


def ranked(logits: np.ndarray, classes: list[str], count: int) -> list[tuple[str, float]]:
    """The classes of highest probability, with it, from logits (classes,)."""
    shares = shares_of(logits)
    # a net may tell more classes apart than there are names
    return [(classes[i] if i < len(classes) else str(i), float(shares[i])) for i in np.argsort(-shares)[:count]]


def lines(path: str, found: list[tuple[str, float]]) -> str:
    """A picture's classes, one a line."""
    return "\n".join([printable(path), *(f"  {100 * share:5.1f} %  {printable(name)}" for name, share in found)])


def pictures_in(folder: Path, left: dict[str, int]) -> list[str]:
    """The picture files in a folder and below, sorted; `left` counts by kind what is left out."""
    found = []
    for parent, folders, files in os.walk(folder):  # it does not enter linked folders
        for name in files:
            if name.startswith("."):
                kind = "hidden"
            elif name.lower().endswith(_ENDINGS):
                found.append(os.path.join(parent, name))
                continue
            else:
                kind = f"named *{os.path.splitext(name)[1].lower()}"
            left[kind] = left.get(kind, 0) + 1
        for name in folders:
            if name.startswith(".") or os.path.islink(os.path.join(parent, name)):
                kind = "hidden" if name.startswith(".") else "linked folders"
                left[kind] = left.get(kind, 0) + 1
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(found)


def class_folders(classes: list[str], folder: Path) -> dict[int, Path]:
    """The folders in a folder by the numbers of the classes that they are named as.

    Raises RefusedError where one is named as none of them.
    """
    numbers = {_folder_name(name): number for number, name in enumerate(classes)}
    found = {}
    for entry in sorted(folder.iterdir()):
        back = entry.is_symlink() and folder.resolve().parts[:len(entry.resolve().parts)] == entry.resolve().parts
        if entry.is_dir() and not entry.name.startswith(".") and not back:
            if _folder_name(entry.name) not in numbers:
                raise RefusedError(str(entry), "is a class that the network does not know", "move it elsewhere")
            found[numbers[_folder_name(entry.name)]] = entry
    return found


def _folder_name(name: str) -> str:
    """How a folder of that class can be named."""
    return unicodedata.normalize("NFC", name).replace("/", "_")


def accuracy(infer: Infer, about: Values, folder: Path) -> tuple[float, int, list[str]]:
    """Top-1 in [0, 1] over the pictures in a folder of folders named as the classes, their number, and what is left
    out, a line each."""
    right, count, left, broken = 0, 0, {}, []  # type: int, int, dict[str, int], list[str]
    try:
        folders = class_folders(about["classes"], folder)
    except OSError as error:
        raise RefusedError(str(folder), f"cannot be read: {error.strerror}", _FOLDER) from None
    for number, place in folders.items():
        for path in pictures_in(place, left):
            try:
                images = prepare(path, about["preprocessing"], about.get("type", "float32"))[None]
            except RefusedError as error:
                broken.append(str(error))
                continue
            right, count = right + int(infer(images)[0].argmax() == number), count + 1
    if not count:
        raise RefusedError(str(folder), "holds no pictures of these classes", _FOLDER)
    return right / count, count, [*broken, *(f"{many} {kind}" for kind, many in left.items())]


def selftest(infer: Infer, about: Values, folder: Path) -> tuple[list[str], bool]:
    """How the answers to the pictures in a folder differ from those that are expected, a line each, and whether each
    has the same top-1."""
    try:
        rows = [(row["picture"], np.array(row["logits"], float)) for row in json.loads(
            (folder / EXPECTED).read_text(encoding="utf-8"))]
        if not rows or not all(len(logits) for _, logits in rows):
            raise ValueError("nothing is expected")
    except (OSError, ValueError, KeyError, TypeError):
        raise RefusedError(str(folder), "holds no pictures with expected answers", "`ofa export --data` writes them"
                           ) from None
    found, same = [], []
    for name, logits in rows:
        picture = prepare(str(folder / name), about["preprocessing"], about.get("type", "float32"))
        shares, expected = shares_of(infer(picture[None])[0]), shares_of(logits)
        if len(shares) != len(expected):
            raise RefusedError(str(folder), f"expects {len(expected)} classes, and the file has {len(shares)}",
                               "`ofa export --data` writes other pictures")
        same.append(bool(shares.argmax() == expected.argmax()))
        found.append(f"{name}: {'same top-1' if same[-1] else 'ANOTHER top-1'}, probabilities differ by "
                     f"{np.abs(shares - expected).max():.1e}")
    return found, all(same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--accuracy", type=Path, metavar="FOLDER")
    parser.add_argument("--selftest", action="store_true")
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack the characters of a name
    try:
        infer, about = opened(arguments.model)
        for path in arguments.pictures:
            logits = infer(prepare(path, about["preprocessing"], about.get("type", "float32"))[None])[0]
            print(lines(path, ranked(logits, about["classes"], 5)))
        if arguments.accuracy is not None:
            top1, count, left = accuracy(infer, about, arguments.accuracy)
            print("\n".join([f"top-1 {100 * top1:.2f} % on {count} pictures", *(f"left out: {line}" for line in left)]))
        if arguments.selftest:
            found, same = selftest(infer, about, Path(arguments.model).parent / SELFTEST)
            print("\n".join(found))
            sys.exit(int(not same))
    except RefusedError as error:
        sys.exit(f"classify.py: {error}")
    except ImportError:
        package = FORMS[ending_of(arguments.model)][1]
        sys.exit(f"classify.py: {arguments.model}: needs the package {package}; pip install {package}")


if __name__ == "__main__":
    main()
