"""The command line: `agman train | evaluate | embed | search | data | models | doctor`.

Modules that need torch are imported where they are used: `agman --help` should not take seconds.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from agman.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from agman.attributes import AttributeTable, QueryGallery, RetrievalData
    from agman.datasets import ImageStore
    from agman.evaluation import Report
    from agman.models import RetrievalModel
    from agman.training import TrainConfig

SHARES = (1 / 2, 1 / 6, 1 / 3)
"""Of the photos of a CSV: to train on, to choose the epoch by, to test on."""

_MOST_PIXELS = 2048


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: its words; default those that the program was started with.

    Returns:
        The exit code: 0, 2 for bad input (one sentence on stderr), 130 when interrupted.
    """
    hint = ""
    try:
        args = _parser().parse_args(argv)
        hint = args.when_stopped
        args.run_command(args)
        sys.stdout.flush()
    except InputError as error:
        print(f"agman: {_worded(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nagman: stopped{hint}.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit as done:  # argparse has shown its help
        return int(done.code or 0)
    return 0


# Messages of the package name Python arguments; on the command line these are options.
_OPTIONS = (
    (r"attributes=\[([^]]*)\]", lambda match: "--attributes " + match[1].replace("'", '"')),
    (r"images=\.\.\.", "--images FOLDER"),
    (r", or pass check_images=False to use the labels alone", ""),
    (r"name one with dataset=", "name the data set's own folder"),
    (r"pass skip_bad=True", "leave them out with --skip-bad"),
)


def _worded(message: str) -> str:
    for pattern, option in _OPTIONS:
        message = re.sub(pattern, option, message)
    return " ".join(message.split())


# ------------------------------------------------------------------------------------- train


@dataclass(frozen=True)
class _Plan:
    """What `agman train` will do, with all defaults filled in."""

    kind: str  # of the data: "lab", "csv" or "asen"
    preset: str
    backbone: str
    weights: str | None
    size: int


def _train(args: argparse.Namespace) -> None:
    import torch

    from agman.attributes import FASHIONAI
    from agman.training import Steps, train

    kind = _kind(args.data)
    given = None if kind == "lab" else _read(args, kind)
    plan = _plan(args, kind, given)
    config = _config(args, plan)
    device = _device(args.device)
    torch.manual_seed(args.seed)
    model = _new_model(args, plan, len(FASHIONAI if given is None else given.schema))
    data = _lab(plan.size, args.quiet) if given is None else given
    print(_described(data))
    _announce(args, plan, config, model)
    if kind == "csv":
        data = _keep_split(Path(args.run), data, _identity(args, plan), args.quiet)
    else:
        _keep_identity(Path(args.run), _identity(args, plan))
    per_epoch = Steps(data.train, config).per_epoch
    print(
        f"Training on {device}: {config.epochs} epochs of {per_epoch} steps, "
        f"{config.epochs * per_epoch} steps in all; kept in {args.run}",
        flush=True,
    )
    history = train(model.to(device), data, config, run=args.run, progress=not args.quiet)
    print(_epochs_table(history))
    print(f"\nTest, on {_parts_of(data)[2]}:")
    report = _measured(model, data, "test", {"run": _read_identity(Path(args.run))}, args.quiet)
    report.save(Path(args.run) / "report.json")
    print(report)
    print(
        f"\nIn {args.run}: best.safetensors (the model), report.json (these numbers), log.jsonl "
        f"(each epoch).\nNext: agman embed --weights {args.run} --photos FOLDER --out "
        "index.safetensors"
    )


def _kind(data: str) -> str:
    if data == "lab":
        return "lab"
    path = Path(data)
    if path.is_dir():
        return "asen"
    if not path.is_file():
        raise InputError(
            f"There is no {data}: --data takes lab, a CSV file, or a folder with ASEN's meta.json."
        )
    return "csv"


def _read(args: argparse.Namespace, kind: str) -> RetrievalData:
    """A CSV, split by image, or an ASEN folder; nothing is decoded yet."""
    from agman.datasets import read_asen, split_by_image

    if kind == "csv":
        return split_by_image(_table(args), seed=args.seed, fractions=SHARES)
    if args.attributes:
        raise InputError("--attributes chooses columns of a CSV; an ASEN folder is taken whole.")
    return read_asen(args.data, images=args.images)


def _table(args: argparse.Namespace, **schema: Any) -> AttributeTable:
    from agman.datasets import read_csv

    columns = args.attributes and [name.strip() for name in args.attributes.split(",")]
    return read_csv(args.data, args.images, attributes=columns, **schema)


def _lab(size: int, quiet: bool) -> RetrievalData:
    from agman import datasets

    return datasets.lab(size=size, progress=not quiet)


def _plan(args: argparse.Namespace, kind: str, data: RetrievalData | None) -> _Plan:
    from agman.backbones import SHIPPED
    from agman.training import PRESETS

    preset = args.preset
    if preset is None:
        own = data.name.lower() if data is not None and kind == "asen" else ""
        preset = "lab" if kind == "lab" else own if own in PRESETS else "products"
    if preset not in PRESETS:
        raise InputError(f"There is no preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    if kind == "lab" and (args.images or args.attributes):
        raise InputError("--images and --attributes belong to a CSV, not to --data lab.")
    small = preset in ("lab", "products")
    backbone = args.backbone or ("lab" if small else "resnet50")
    weights = args.weights
    if weights is None and backbone == "lab":
        weights = "objects" if (SHIPPED / "objects.safetensors").exists() else "none"
    weights = weights or "imagenet"
    size = args.size or (96 if backbone == "lab" else 128 if small else 224)
    return _Plan(kind, preset, backbone, None if weights == "none" else weights, size)


def _config(args: argparse.Namespace, plan: _Plan) -> TrainConfig:
    """The preset with what was asked for instead."""
    from agman.training import PRESETS, RELEASED

    asked = {
        "recipe": args.recipe,
        "epochs": args.epochs,
        "triplets_per_epoch": args.triplets,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "freeze_backbone": args.freeze,
    }
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if args.released:
        changes = {"recipe": "triplet", **RELEASED, **changes}
    if args.freeze is None and (plan.weights is None or plan.backbone == "lab"):
        changes["freeze_backbone"] = False  # its features know drawn garments at best
    return replace(PRESETS[plan.preset], seed=args.seed, **changes)


def _new_model(args: argparse.Namespace, plan: _Plan, n_attributes: int) -> RetrievalModel:
    """The model at the wanted size, after one trial image."""
    import torch

    from agman.models import create_model

    try:
        model = create_model(
            args.model,
            n_attributes=n_attributes,
            backbone=plan.backbone,
            weights=plan.weights,
            released=args.released,
        )
    except InputError:
        raise
    except Exception as error:  # torchvision and timm fail to download in many ways
        if plan.weights != "imagenet":
            raise
        raise InputError(
            f"The ImageNet weights of {plan.backbone} could not be had ({error}); connect to the "
            "internet, give a file with --weights, or take --backbone lab."
        ) from error
    model.preprocessing = replace(model.preprocessing, size=plan.size)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, plan.size, plan.size), torch.tensor([0]))
    return model


def _announce(
    args: argparse.Namespace, plan: _Plan, config: TrainConfig, model: RetrievalModel
) -> None:
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    state = "frozen" if config.freeze_backbone else "trained too"
    print(
        f"\nModel {args.model} ({millions:.1f} million parameters), photos at {plan.size} pixels"
        f"\nBackbone {plan.backbone}, weights {plan.weights or 'none (random)'}, {state}"
        f"\nPreset {plan.preset}, recipe {config.recipe}, batches of {config.batch_size}"
    )
    if plan.backbone == "lab" and plan.kind != "lab":
        print(
            "The lab backbone is small and needs no download; for photos --backbone resnet18 is "
            "usually better, and downloads 45 MB of ImageNet weights once."
        )


def _epochs_table(history: Sequence[dict[str, Any]]) -> str:
    best = max(history, key=lambda row: row.get("map_micro", row["epoch"]))
    lines = [f"\n{'epoch':>5}  {'loss':>7}  {'valid MAP %':>11}  {'seconds':>7}"]
    for row in history:
        score = f"{100 * row['map_micro']:11.2f}" if "map_micro" in row else f"{'-':>11}"
        mark = "  best, kept" if row is best else ""
        lines.append(f"{row['epoch']:5}  {row['loss']:7.4f}  {score}  {row['seconds']:7.1f}{mark}")
    return "\n".join(lines)


# ------------------------------------------------------------------------ the data of a run

_IDENTITY, _PACKED, _LISTS = "data.json", "images.npz", "data"


def _identity(args: argparse.Namespace, plan: _Plan) -> dict[str, Any]:
    """What must be the same for a run to go on; a CSV counts by its content."""
    import hashlib

    identity: dict[str, Any] = {"kind": plan.kind, "size": plan.size, "seed": args.seed}
    if plan.kind == "csv":
        identity["sha256"] = hashlib.sha256(Path(args.data).read_bytes()).hexdigest()
        identity["attributes"] = args.attributes
    if plan.kind == "asen":
        identity["folder"] = str(Path(args.data).resolve())
        identity["images"] = args.images and str(Path(args.images).resolve())
    return {**identity, "data": Path(args.data).name}


def _keep_identity(run: Path, identity: dict[str, Any]) -> bool:
    """Write `identity` into a new run folder; whether it was there already.

    Raises:
        InputError: the folder holds a run on other data.
    """
    from agman.storage import read_json, write_json

    file = run / _IDENTITY
    if not file.exists():
        write_json(file, identity)
        return False
    old = read_json(file)
    for name, value in identity.items():
        if not isinstance(old, dict) or old.get(name) != value:
            raise InputError(
                f"{run} holds a run on other data ({_IDENTITY} differs in {name}); choose another "
                "folder with --run, or give the same data and options to go on with it."
            )
    return True


def _read_identity(run: Path) -> dict[str, Any]:
    from agman.storage import read_json

    if not run.is_dir():
        raise InputError(f"{run}: there is no such run folder; `agman train --run` makes one.")
    if not (run / _IDENTITY).is_file():
        raise InputError(
            f"{run} holds no run of `agman train` ({_IDENTITY} is missing); check the path."
        )
    identity = read_json(run / _IDENTITY)
    if not isinstance(identity, dict) or not {"kind", "size"} <= set(identity):
        raise InputError(f"{run / _IDENTITY} was changed by hand; train in another folder.")
    return identity


def _keep_split(
    run: Path, data: RetrievalData, identity: dict[str, Any], quiet: bool
) -> RetrievalData:
    """Pack the photos of a CSV and write its split into the run folder, once; read both back."""
    from agman.datasets import pack, write_asen

    if not (run / _IDENTITY).exists():  # written last, so the rest is whole where it stands
        was_there = run.exists()
        try:
            pack(data.train.images, identity["size"], run / _PACKED, progress=not quiet)
            write_asen(data, run / _LISTS)
        except (InputError, KeyboardInterrupt):
            if not was_there:
                shutil.rmtree(run, ignore_errors=True)
            raise
    _keep_identity(run, identity)
    return _kept_split(run)


def _kept_split(run: Path) -> RetrievalData:
    import numpy as np

    from agman.attributes import QueryGallery
    from agman.datasets import PackedImages, read_asen

    packed = PackedImages.open(run / _PACKED)
    data = read_asen(run / _LISTS, check_images=False)
    place = {name: number for number, name in enumerate(packed.names)}

    def onto_packed(table: AttributeTable) -> AttributeTable:
        try:
            number = np.array([place[name] for name in table.images.names], dtype=np.int64)
        except KeyError as error:
            raise InputError(
                f"{run / _PACKED} does not hold the photo {error}; train again in another folder."
            ) from error
        return replace(table, images=packed, image=number[table.image])

    valid, test = (
        QueryGallery(onto_packed(part.queries), onto_packed(part.gallery))
        for part in (data.valid, data.test)
    )
    return replace(data, train=onto_packed(data.train), valid=valid, test=test)


def _data_of_run(run: Path, quiet: bool) -> RetrievalData:
    from agman.datasets import read_asen

    identity = _read_identity(run)
    if identity["kind"] == "lab":
        return _lab(identity["size"], quiet)
    if identity["kind"] == "csv":
        return _kept_split(run)
    return read_asen(identity["folder"], images=identity["images"])


# ---------------------------------------------------------------------------------- evaluate


def _evaluate(args: argparse.Namespace) -> None:
    if (args.run is None) == (args.weights is None) or bool(args.data) == bool(args.run):
        raise InputError("Give --run FOLDER alone, or --weights FILE together with --data.")
    model = _load_model(args.run or args.weights, args.device)
    if args.run:
        data = _data_of_run(Path(args.run), args.quiet)
    else:
        data = _data_for(model, args)
    about = {"run": _read_identity(Path(args.run))} if args.run else {"data": args.data}
    report = _measured(model, data, args.split, about, args.quiet)
    print(report)
    if args.worst:
        print(f"\n{'AP %':>6}  {'attribute':<16}  {'value':<16}  photo")
    for query in report.worst(args.worst):
        print(
            f"{100 * query['ap']:6.2f}  {query['attribute']:<16}  {query['value']:<16}  "
            f"{query['image']}"
        )
    if args.json:
        if args.worst:
            report.about["worst"] = report.worst(args.worst)
        report.save(args.json)
        print(f"\nWritten to {args.json}")


def _data_for(model: RetrievalModel, args: argparse.Namespace) -> RetrievalData:
    """The named data, with attributes numbered as the model numbers them."""
    from agman.attributes import FASHIONAI
    from agman.datasets import split_by_image

    kind = _kind(args.data)
    if kind == "csv" and model.schema is not None:
        table = _table(args, schema=model.schema)
        return split_by_image(table, seed=args.seed, fractions=SHARES)
    data = None if kind == "lab" else _read(args, kind)
    names = (FASHIONAI if data is None else data.schema).names
    if model.schema is not None and model.schema.names != names:
        raise InputError(
            f"The model knows the attributes {', '.join(model.schema.names)}, but {args.data} has "
            f"{', '.join(names)}; evaluate it on the kind of data it was trained on."
        )
    return data or _lab(model.preprocessing.size, args.quiet)


def _measured(
    model: RetrievalModel, data: RetrievalData, split: str, about: dict[str, Any], quiet: bool
) -> Report:
    """The report of one split, with all that is needed to repeat it beside the numbers."""
    from agman.evaluation import evaluate
    from agman.index import fingerprint
    from agman.provenance import provenance

    part = data.test if split == "test" else data.valid
    if not len(part.queries):
        raise InputError(f"{data.name}: there are no queries in its {split} part; name another.")
    report = evaluate(model, part.queries, part.gallery, progress=not quiet)
    described = {
        "model": model.name,
        "fingerprint": fingerprint(model),
        "split": split,
        **about,
        "provenance": provenance(),
        "training": model.provenance,
    }
    return replace(report, about=described)


def _load_model(source: str, device: str) -> RetrievalModel:
    """A run folder, a weights file, `lab/<name>`, or a checkpoint of the authors' scripts."""
    from agman.checkpoint import load_reference
    from agman.models import load

    path = Path(source)
    if path.is_dir():
        path = path / "best.safetensors"
        if not path.exists():
            raise InputError(
                f"{source} holds no trained model yet (no best.safetensors); train one with "
                f"`agman train --run {source}`."
            )
    reference = path.suffix in (".pth", ".pt", ".tar", ".ckpt", ".pkl")
    wanted = _device(device)
    model = load_reference(path) if reference else load(source if path == Path(source) else path)
    return model.to(wanted)


def _device(name: str) -> str:
    """A device that works here; "auto" is a CUDA GPU where there is one."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--device {name} cannot be used here ({reason}); try --device cpu."
        ) from error
    return name


# --------------------------------------------------------------------------- embed and search


def _embed(args: argparse.Namespace) -> None:
    from agman.index import PhotoIndex, find_photos

    photos = find_photos(args.photos)
    model = _load_model(args.weights, args.device)
    print(f"{len(photos)} photos in {args.photos}")
    index = PhotoIndex.build(
        model,
        args.photos,
        batch_size=args.batch_size,
        skip_bad=args.skip_bad,
        progress=not args.quiet,
    )
    index.save(args.out)
    for sentence in index.skipped:
        print(f"left out: {sentence}")
    _, attributes, width = index.embeddings.shape
    size = Path(args.out).stat().st_size / 1e6
    print(
        f"{len(index)} photos under {attributes} attributes ({width} numbers each) in {args.out}, "
        f"{size:.1f} MB"
    )
    example = model.schema.names[0] if model.schema is not None else 0
    print(
        f"Next: agman search --index {args.out} --weights {args.weights} --photo PHOTO "
        f"--attribute {example}"
    )


def _search(args: argparse.Namespace) -> None:
    from agman.index import PhotoIndex

    if args.png and not args.photos:
        raise InputError("--png needs --photos, the folder that was indexed, to show them.")
    model = _load_model(args.weights, args.device)
    index = PhotoIndex.load(args.index, model)
    known = model.schema.names if model.schema is not None else ()
    by_number = args.attribute.isdigit() and args.attribute not in known
    hits = index.search(args.photo, int(args.attribute) if by_number else args.attribute, args.k)
    if args.png:
        found = [Path(args.photos) / hit.name for hit in hits]
        _draw_hits(Path(args.photo), found, args.png)
    print(f"{'rank':>4}  {'score':>6}  photo")
    for rank, hit in enumerate(hits, start=1):
        print(f"{rank:4}  {hit.score:6.3f}  {hit.name}")


def _draw_hits(query: Path, found: Sequence[Path], out: str) -> None:
    """A picture of the query and what it found, ten to a row."""
    from agman.datasets.images import load_image
    from agman.figures import image_grid
    from agman.storage import replacing

    def picture(path: Path) -> np.ndarray:
        return load_image(path, 160).permute(1, 2, 0).numpy()

    shown = [picture(path) for path in found]
    rows: list[list[np.ndarray | None]] = [
        [picture(query) if start == 0 else None, *shown[start : start + 10]]
        for start in range(0, len(shown), 10)
    ]
    titles = ["query", *(str(i + 1) for i in range(min(10, len(shown))))]
    figure = image_grid(rows, column_titles=titles)
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


# -------------------------------------------------------------------- data, models and doctor


def _data(args: argparse.Namespace) -> None:
    if args.what == "lab":
        print(_described(_lab(args.size, args.quiet)))
        return
    kind = _kind(args.path)
    args.data = args.path
    if kind == "lab":
        raise InputError("To look at the lab wardrobe use `agman data lab`.")
    if kind == "csv":
        table = _table(args)
        stores = [table.images]
        print("\n".join([str(table), *_notes(table)]))
    else:
        data = _read(args, kind)
        tables = (data.train, data.valid.queries, data.test.queries)
        stores = [table.images for table in tables if len(table)]
        print(_described(data))
    if not args.labels_only:
        _open_all(stores, args.quiet)


def _described(data: RetrievalData) -> str:
    """Counts of the training rows, of the other parts, and what cannot be learned."""
    train = str(data.train) if len(data.train) else f"{data.name}: nothing to train on"
    parts = zip(("train", "valid", "test"), _parts_of(data), strict=True)
    lines = [f"  {name}: {part}" for name, part in parts]
    return "\n".join([train, *_notes(data.train), "Parts", *lines])


def _parts_of(data: RetrievalData) -> tuple[str, str, str]:
    """Each part of a data set in a few words."""

    def photos(table: AttributeTable) -> str:
        return f"{len(set(table.image.tolist())):,}"

    def ranked(part: QueryGallery) -> str:
        return f"{photos(part.queries)} query photos against {photos(part.gallery)}"

    train = f"{photos(data.train)} photos, {len(data.train):,} labels"
    return train, ranked(data.valid), ranked(data.test)


def _notes(table: AttributeTable) -> list[str]:
    """One line for each attribute that teaches little or nothing."""
    notes = []
    for name, counts in zip(table.schema.names, table.counts(), strict=True):
        single = int((counts == 1).sum())
        if (counts > 0).sum() < 2:
            notes.append(f"  note: {name} cannot be learned, its photos do not differ in it")
        elif counts.max() < 2:
            notes.append(f"  note: {name} cannot be learned, no two photos share a value")
        elif single:
            notes.append(f"  note: {name} has {single} values with a single photo, hard to learn")
    return notes


def _open_all(stores: Sequence[ImageStore], quiet: bool) -> None:
    """Decode every photo once.

    Raises:
        InputError: some cannot be read; the message counts them.
    """
    from agman.datasets import pack

    for store in stores:
        pack(store, 8, progress=not quiet)  # tiny, and thrown away
    print(f"All {sum(map(len, stores)):,} photos can be read.")


def _models(args: argparse.Namespace) -> None:
    import inspect

    import torch

    from agman.backbones import SHIPPED
    from agman.models import MODELS, create_model

    print(f"{'name':<10}  {'million parameters':>18}  what it is (ResNet-50, 8 attributes)")
    for name, kind in MODELS.items():
        with torch.device("meta"):  # counts without memory or random numbers
            model = create_model(name, n_attributes=8, backbone="resnet50")
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        what = (inspect.getdoc(kind) or "").splitlines()[0]
        print(f"{name:<10}  {millions:18.2f}  {what}")
    shipped = sorted(p.stem for p in SHIPPED.glob("*.safetensors") if p.stem != "objects")
    names = ", ".join(f"lab/{name}" for name in shipped)
    print(f"\nTrained models that come with the package: {names or 'none'}")


def _doctor(args: argparse.Namespace) -> None:
    import platform

    import torch

    from agman.backbones import SHIPPED
    from agman.datasets.lab import cache_folder
    from agman.provenance import provenance

    found = provenance()
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    machine = found["machine"]
    cache = cache_folder()
    files = [path for path in cache.rglob("*") if path.is_file()] if cache.is_dir() else []
    drawn = sorted(path.name for path in files if path.match("lab-*.npz"))
    weights = sorted(path.name for path in SHIPPED.glob("*.safetensors"))
    existing = next(place for place in (cache, *cache.parents) if place.exists())
    rows = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "packages": versions,
        "device": machine["accelerator"] or "no GPU, the processor is used",
        "processor": f"{machine['processor']}, {machine['cores']} cores",
        "threads": f"{torch.get_num_threads()} used by torch",
        "cache folder": f"{cache} ({sum(p.stat().st_size for p in files) / 1e6:.0f} MB)",
        "lab wardrobe": f"{len(drawn)} parts drawn" if drawn else "not drawn yet: agman data lab",
        "shipped weights": ", ".join(weights) or "none",
        "disk": f"{shutil.disk_usage(existing).free / 1e9:.1f} GB free at the cache folder",
    }
    for name, value in rows.items():
        print(f"{name:<16}  {value}")


# ------------------------------------------------------------------------------- the options

_START = """\
examples, from your own photos to a search:
  agman data check shop.csv                      what is in your catalogue
  agman train --data shop.csv --run runs/shop    learn its attributes
  agman embed --weights runs/shop --photos photos --out shop.safetensors
  agman search --index shop.safetensors --weights runs/shop \\
        --photo new.jpg --attribute color

A catalogue is a CSV whose first column, or the column `file`, names a photo and whose other
columns are attributes; an empty cell means "unknown". `agman COMMAND --help` explains a command.
"""

_TRAIN = """\
examples:
  agman train --data lab --run runs/lab                         drawn garments, nothing to bring
  agman train --data shop.csv --images photos --run runs/shop   your own catalogue
  agman train --data shop.csv --attributes color,sleeve --run runs/two
  agman train --data FashionAI --backbone resnet50 --run runs/fashionai

A CSV is split by photo: half to learn from, a sixth to choose the best epoch, a third held back
for the test. Everything goes into the run folder; the same command again goes on after an
interruption, or shows the test again.
"""

_EVALUATE = """\
examples:
  agman evaluate --run runs/shop --worst 10
  agman evaluate --weights lab/agman --data lab --json lab.json

MAP is the mean average precision in percent: 100 if all photos of the same value come first.
Compare it with `chance`, what a random ranking gets.
"""

_EMBED = """\
example:
  agman embed --weights runs/shop --photos photos --out shop.safetensors
"""

_SEARCH = """\
example:
  agman search --index shop.safetensors --weights runs/shop --photo new.jpg \\
        --attribute color -k 20 --photos photos --png found.png
"""

_DATA = """\
examples:
  agman data check shop.csv --images photos
  agman data check FashionAI --labels-only
  agman data lab
"""


class _Parser(argparse.ArgumentParser):
    """Explains itself in one sentence instead of a wall of options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` explains the options.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="agman",
        description="Find fashion photos that share one attribute: train, measure, search.",
        epilog=_START,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, about: str, epilog: str = "", stopped: str = "") -> Any:
        new = commands.add_parser(name, help=about, description=about, epilog=epilog)
        new.set_defaults(run_command=run, when_stopped=stopped)
        return new

    again = "; run the same command again to go on"
    _train_options(command("train", _train, "train a model on labelled photos", _TRAIN, again))
    _evaluate_options(command("evaluate", _evaluate, "measure a trained model", _EVALUATE))
    _embed_options(command("embed", _embed, "index a folder of photos for search", _EMBED))
    _search_options(command("search", _search, "find the photos most like yours", _SEARCH))
    _data_options(command("data", _data, "look at a data set before training", _DATA))
    command("models", _models, "list the models")
    command("doctor", _doctor, "show versions, device, cache and disk: what to send with a bug")
    return parser


def _train_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to learn from").add_argument
    add(
        "--data",
        metavar="DATA",
        required=True,
        help="lab (drawn garments), a CSV, or a folder in ASEN's format",
    )
    _csv_options(add)
    add = parser.add_argument_group("the network").add_argument
    add("--model", metavar="NAME", default="agman", help="see `agman models` (default: agman)")
    add(
        "--backbone",
        metavar="NAME",
        help="lab, resnet18, resnet34, resnet50 or timm/NAME (default: lab; resnet50 for the "
        "presets of the published data sets)",
    )
    add(
        "--weights",
        metavar="NAME",
        help="start of the backbone: objects (the lab's, shipped), imagenet (downloaded), none "
        "(random) or a safetensors file (default: objects for lab if shipped, else imagenet)",
    )
    add(
        "--size",
        metavar="N",
        type=_pixels,
        help="side of the square photos in pixels (default: 96 for the lab backbone, 128 for "
        "others, 224 for the published data sets)",
    )
    add(
        "--released", action="store_true", help="with the quirks of the released code (default: no)"
    )
    add = parser.add_argument_group("how to train").add_argument
    add(
        "--preset",
        metavar="NAME",
        help="start values: lab, products, fashionai, deepfashion or zappos50k (default: lab for "
        "lab, products for a CSV, the data set's own otherwise)",
    )
    add(
        "--freeze",
        action=argparse.BooleanOptionalAction,
        help="train the head only, on features computed once: fast (default: as the preset, but "
        "not for the lab backbone or random weights)",
    )
    add("--epochs", metavar="N", type=int, help="passes over the photos (default: as the preset)")
    add(
        "--batch-size",
        metavar="N",
        type=int,
        help="photos or triplets in a step (default: as the preset)",
    )
    add("--learning-rate", metavar="RATE", type=float, help="of Adam (default: as the preset)")
    add("--recipe", metavar="NAME", help="triplet or all_pairs (default: as the preset)")
    add("--triplets", metavar="N", type=int, help="per epoch of `triplet` (default: as the preset)")
    add(
        "--seed",
        metavar="N",
        type=_seed,
        default=0,
        help="of split, start and sampling (default: 0)",
    )
    add = parser.add_argument_group("where").add_argument
    add(
        "--run",
        metavar="FOLDER",
        required=True,
        help="folder for the model, the log and the report",
    )
    _machine_options(add)


def _csv_options(add: Any) -> None:
    add(
        "--images",
        metavar="FOLDER",
        help="folder of the photos (default: that of the CSV, or images/ in it)",
    )
    add("--attributes", metavar="A,B", help="columns to use, with commas between (default: all)")


def _machine_options(add: Any) -> None:
    add(
        "--device",
        metavar="NAME",
        default="auto",
        help="auto, cpu, cuda, cuda:1, mps (default: auto, a GPU)",
    )
    add("--quiet", action="store_true", help="no progress bars (default: bars)")


_WEIGHTS = "run folder, model file, or lab/NAME for one that comes with the package"


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--run", metavar="FOLDER", help="a run folder: its best model on the photos it never saw")
    add("--weights", metavar="MODEL", help=f"instead of --run: {_WEIGHTS}; needs --data")
    add("--data", metavar="DATA", help="lab, a CSV, or a folder in ASEN's format, for --weights")
    _csv_options(add)
    add("--split", choices=("test", "valid"), default="test", help="which part (default: test)")
    add("--seed", metavar="N", type=_seed, default=0, help="of the split of a CSV (default: 0)")
    add(
        "--worst", metavar="N", type=_count, default=0, help="show the N worst queries (default: 0)"
    )
    add("--json", metavar="FILE", help="file to write the numbers to (default: none)")
    _machine_options(add)


def _embed_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--weights", metavar="MODEL", required=True, help=_WEIGHTS)
    add(
        "--photos",
        metavar="FOLDER",
        required=True,
        help="folder of photos; its subfolders are searched too",
    )
    add(
        "--out",
        metavar="FILE",
        required=True,
        help="file to write the index to, such as shop.safetensors",
    )
    add("--skip-bad", action="store_true", help="leave out unreadable photos (default: refuse)")
    add(
        "--batch-size",
        metavar="N",
        type=_positive,
        default=64,
        help="photos in one pass (default: 64)",
    )
    _machine_options(add)


def _search_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--index", metavar="FILE", required=True, help="file that `agman embed` wrote")
    add(
        "--weights",
        metavar="MODEL",
        required=True,
        help=f"what the index was made with: {_WEIGHTS}",
    )
    add("--photo", metavar="FILE", required=True, help="the photo to search with")
    add(
        "--attribute",
        metavar="NAME",
        required=True,
        help="what the photos should share, such as sleeve_length",
    )
    add("-k", metavar="N", type=_positive, default=10, help="how many to show (default: 10)")
    add(
        "--png",
        metavar="FILE",
        help="file for a picture of the result; needs --photos (default: none)",
    )
    add("--photos", metavar="FOLDER", help="folder that was indexed, for --png")
    _machine_options(add)


def _data_options(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="what", metavar="WHAT", dest="what", required=True)
    about = "count attributes and values of a CSV or an ASEN folder, and open every photo"
    check = kinds.add_parser("check", help=about, description=about)
    check.add_argument("path", help="the CSV or the folder")
    _csv_options(check.add_argument)
    check.add_argument(
        "--labels-only", action="store_true", help="do not open the photos (default: open all)"
    )
    about = "draw the lab wardrobe (once, under a minute) and count it"
    lab = kinds.add_parser("lab", help=about, description=about)
    lab.add_argument(
        "--size", metavar="N", type=_pixels, default=96, help="in pixels (default: 96)"
    )
    for parser in (check, lab):
        parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _whole(text: str, least: int, most: float = float("inf")) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        above = f"from {least} to {most}" if most < float("inf") else f"of at least {least}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {above}")
    return number


def _count(text: str) -> int:
    return _whole(text, 0)


def _positive(text: str) -> int:
    return _whole(text, 1)


def _pixels(text: str) -> int:
    return _whole(text, 1, _MOST_PIXELS)


def _seed(text: str) -> int:
    return _whole(text, 0, 2**63 - 1)


if __name__ == "__main__":
    sys.exit(main())
