"""What each command of `agman` does with its options; `agman.cli` reads them.

Modules that need torch are imported where they are used: `agman --help` should not take seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agman.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from agman.attributes import AttributeTable, QueryGallery, RetrievalData
    from agman.datasets import CSNTriplets, ImageStore
    from agman.evaluation import Report
    from agman.experiments import Data
    from agman.models import RetrievalModel
    from agman.shards import Shards
    from agman.training import TrainConfig

SHARES = (1 / 2, 1 / 6, 1 / 3)
"""Of the photos of a CSV: to train on, to choose the epoch by, to test on."""


# ------------------------------------------------------------------------------------- train


@dataclass(frozen=True)
class _Plan:
    """What `agman train` will do, with all defaults filled in."""

    kind: str  # of the data: "lab", "csv", "asen" or "csn"
    preset: str
    backbone: str
    weights: str | None
    size: int


def train(args: argparse.Namespace) -> None:
    import torch.distributed as dist

    from agman.training import processes

    rank, world = processes()
    if rank:  # the first process says and writes everything
        args.quiet = True
        with contextlib.redirect_stdout(io.StringIO()):
            _train(args, rank, world)
    else:
        _train(args, rank, world)
    if world > 1:
        dist.destroy_process_group()


def _train(args: argparse.Namespace, rank: int, world: int) -> None:
    import torch

    from agman.attributes import FASHIONAI
    from agman.training import Steps, train

    kind, device = _kind(args.data), _device(args.device)
    with _first_alone(rank, world):
        given = None if kind == "lab" else _read(args, kind)
        plan = _plan(args, kind, given)
        config = _config(args, plan)
        torch.manual_seed(args.seed)
        model = _new_model(args, plan, len(FASHIONAI if given is None else given.schema))
        data = _lab(plan.size, args.quiet) if given is None else given
        print(_described(data))
        _announce(args, plan, config, model)
        data = _kept_data(Path(args.run), data, _identity(args, plan), args.quiet)
    per_epoch = Steps.of(data, config).per_epoch
    shared = f" by {world} processes" if world > 1 else ""
    print(
        f"Training on {device}{shared}: {config.epochs} epochs of {per_epoch} steps, "
        f"{config.epochs * per_epoch} steps in all; kept in {args.run}",
        flush=True,
    )
    history = train(
        model.to(device),
        data,
        config,
        run=args.run,
        accumulate=args.accumulate,
        progress=not args.quiet,
    )
    if rank:
        return
    print(_epochs_table(history))
    print(f"\nTest, on {_parts_of(data)[2]}:")
    labelled = _labelled(data, args.data)
    about = {"run": _read_identity(Path(args.run))}
    report = _measured(model, data, labelled, about, args.quiet)
    report.save(Path(args.run) / "report.json")
    print(report)
    print(
        f"\nIn {args.run}: best.safetensors (the model), report.json (these numbers), log.jsonl "
        f"(each epoch).\nNext: agman embed --weights {args.run} --photos FOLDER --out "
        "index.safetensors"
    )


@contextlib.contextmanager
def _first_alone(rank: int, world: int) -> Iterator[None]:
    """Let the first process do what prepares files; the others then find them."""
    import torch.distributed as dist

    if rank:
        dist.barrier()
    yield
    if world > 1 and not rank:
        dist.barrier()


def _kind(data: str) -> str:
    if data == "lab":
        return "lab"
    path = Path(data)
    if path.is_dir():
        return "csn" if (path / "filenames.json").exists() else "asen"
    if not path.is_file():
        raise InputError(
            f"There is no {data}: --data takes lab, a CSV file, or a folder with ASEN's meta.json "
            "or CSN's filenames.json."
        )
    return "csv"


def _read(args: argparse.Namespace, kind: str) -> Data:
    """A CSV, split by image, or a folder of a published data set; nothing is decoded yet."""
    from agman.datasets import split_by_image

    if kind == "csv":
        return split_by_image(_table(args), seed=args.seed, fractions=SHARES)
    if args.attributes:
        raise InputError("--attributes chooses columns of a CSV; a data folder is taken whole.")
    return _read_folder(args.data, kind, args.images)


def _read_folder(folder: str, kind: str, images: str | None) -> Data:
    """ASEN's lists, or as many of CSN's triplets as the released code uses."""
    from agman.datasets import read_asen, read_csn
    from agman.datasets.csn import RELEASED_LIMITS

    if kind == "csn":
        return read_csn(folder, images, limits=RELEASED_LIMITS)
    return read_asen(folder, images=images)


def _labelled(data: Data, folder: str) -> RetrievalData | None:
    """The labelled form of a data set of triplets, if it lies in the same folder."""
    from agman.datasets import CSNTriplets, read_asen

    if isinstance(data, CSNTriplets) and (Path(folder) / "query_test.txt").exists():
        return read_asen(folder, images=getattr(data.images, "root", None))
    return None


def _table(args: argparse.Namespace, **schema: Any) -> AttributeTable:
    from agman.datasets import read_csv

    columns = args.attributes and [name.strip() for name in args.attributes.split(",")]
    return read_csv(args.data, args.images, attributes=columns, **schema)


def _lab(size: int, quiet: bool) -> RetrievalData:
    from agman import datasets

    return datasets.lab(size=size, progress=not quiet)


def _plan(args: argparse.Namespace, kind: str, data: Data | None) -> _Plan:
    from agman.backbones import SHIPPED
    from agman.training import PRESETS

    preset = args.preset
    if preset is None:
        own = "" if data is None or kind == "csv" else data.schema.name.lower()
        preset = "lab" if kind == "lab" else own if own in PRESETS else "products"
    if preset not in PRESETS:
        raise InputError(f"There is no preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    if kind == "lab" and (args.images or args.attributes):
        raise InputError("--images and --attributes belong to a CSV, not to --data lab.")
    small = preset in ("lab", "lab_triplets", "products")
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

    # The released run on triplets has no classification loss.
    fewer = plan.kind == "csn" and args.released and args.model == "agman"
    model = create_model(
        args.model,
        n_attributes=n_attributes,
        backbone=plan.backbone,
        weights=plan.weights,
        released=args.released,
        **({"classification": False} if fewer else {}),
    )
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
    from agman.training import score

    best = max(history, key=score)
    triplets = "triplet_accuracy" in best
    title = "valid triplets %" if triplets else "valid MAP %"
    key = "triplet_accuracy" if triplets else "map_micro"
    lines = [f"\n{'epoch':>5}  {'loss':>7}  {title}  {'seconds':>7}"]
    for row in history:
        shown = f"{100 * row[key]:.2f}" if key in row else "-"
        mark = "  best, kept" if row is best else ""
        lines.append(
            f"{row['epoch']:5}  {row['loss']:7.4f}  {shown:>{len(title)}}  {row['seconds']:7.1f}"
            + mark
        )
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
    if plan.kind in ("asen", "csn"):
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

    if not (run / _IDENTITY).is_file():
        raise InputError(
            f"{run} holds no run of `agman train` ({_IDENTITY} is missing); check the path."
        )
    identity = read_json(run / _IDENTITY)
    needed = {"kind", "size"}
    if isinstance(identity, dict) and identity.get("kind") in ("asen", "csn"):
        needed |= {"folder", "images"}
    if not isinstance(identity, dict) or not needed <= set(identity):
        raise InputError(f"{run / _IDENTITY} was changed by hand; train in another folder.")
    return identity


def _kept_data(run: Path, data: Data, identity: dict[str, Any], quiet: bool) -> Data:
    """The data as the run folder knows it, which is told about it the first time."""
    if identity["kind"] == "csv":
        return _keep_split(run, data, identity, quiet)  # type: ignore[arg-type]
    _keep_identity(run, identity)
    return data


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


def _data_of_run(run: Path, quiet: bool) -> Data:
    identity = _read_identity(run)
    if identity["kind"] == "lab":
        return _lab(identity["size"], quiet)
    if identity["kind"] == "csv":
        return _kept_split(run)
    return _read_folder(identity["folder"], identity["kind"], identity["images"])


# ---------------------------------------------------------------------------------- evaluate


def evaluate(args: argparse.Namespace) -> None:
    if (args.run is None) == (args.weights is None) or bool(args.data) == bool(args.run):
        raise InputError("Give --run FOLDER alone, or --weights FILE together with --data.")
    model = _load_model(args.run or args.weights, args.device)
    if args.run:
        identity = _read_identity(Path(args.run))
        data, about = _data_of_run(Path(args.run), args.quiet), {"run": identity}
        folder = identity.get("folder", "")
    else:
        data, about = _data_for(model, args), {"data": args.data}
        folder = args.data
    labelled = _labelled(data, folder)
    report = _measured(model, data, labelled, about, args.quiet, args.split, args.ties)
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


def _data_for(model: RetrievalModel, args: argparse.Namespace) -> Data:
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
    model: RetrievalModel,
    data: Data,
    labelled: RetrievalData | None,
    about: dict[str, Any],
    quiet: bool,
    split: str = "test",
    ties: str = "fair",
) -> Report | _TripletReport:
    """The report of one split, with all that is needed to repeat it beside the numbers."""
    from agman.attributes import RetrievalData
    from agman.embedding import fingerprint
    from agman.provenance import provenance

    described = {
        "model": model.name,
        "fingerprint": fingerprint(model),
        "split": split,
        "ties": ties,
        **about,
        "provenance": provenance(),
        "training": model.provenance,
    }
    if isinstance(data, RetrievalData):
        return replace(_ranked(model, data, split, ties, quiet), about=described)
    ranking = None if labelled is None else _ranked(model, labelled, split, ties, quiet)
    return _TripletReport(_accuracy(model, data, split, quiet), ranking, described)


def _ranked(
    model: RetrievalModel, data: RetrievalData, split: str, ties: str, quiet: bool
) -> Report:
    from agman.evaluation import evaluate

    part = data.test if split == "test" else data.valid
    if not len(part.queries):
        raise InputError(f"{data.name}: there are no queries in its {split} part; name another.")
    return evaluate(model, part.queries, part.gallery, ties=ties, progress=not quiet)


@dataclass(frozen=True)
class _TripletReport:
    """Shares of triplets that are ranked right, and MAP where the images are labelled too."""

    accuracy: Mapping[str, float]  # in 0..1, of each attribute and overall
    ranking: Report | None
    about: dict[str, Any]

    def worst(self, k: int) -> list[dict[str, Any]]:
        """The worst queries, which only labelled images have."""
        if k and self.ranking is None:
            raise InputError("--worst needs labelled queries; these data are triplets alone.")
        return [] if self.ranking is None else self.ranking.worst(k)

    def save(self, path: str | Path) -> None:
        """Write everything in percent as JSON, whole or not at all."""
        from agman.storage import write_json

        accuracy = {name: 100 * share for name, share in self.accuracy.items()}
        ranking = {} if self.ranking is None else self.ranking.to_dict()
        write_json(path, {"triplet_accuracy": accuracy, **ranking, **self.about})

    def __str__(self) -> str:
        width = max(map(len, self.accuracy))
        lines = [f"{'attribute':<{width}}  triplets right %"]
        lines += [f"{name:<{width}}  {100 * x:16.2f}" for name, x in self.accuracy.items()]
        return "\n".join(lines) + ("" if self.ranking is None else f"\n\n{self.ranking}")


def _accuracy(
    model: RetrievalModel, data: CSNTriplets, split: str, quiet: bool
) -> Mapping[str, float]:
    from agman.evaluation import evaluate_triplets
    from agman.sampling import Triplets

    triplets = Triplets(*(data.test if split == "test" else data.valid).T)
    if not len(triplets.attributes):
        raise InputError(f"There are no triplets in the {split} part; name another.")
    return evaluate_triplets(model, data.images, triplets, data.schema, progress=not quiet)


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


def embed(args: argparse.Namespace) -> None:
    import torch.distributed as dist

    from agman.embedding import open_photos
    from agman.training import processes

    rank, world = processes()
    photos = open_photos(args.photos)
    if not rank:  # the first process speaks for all
        print(f"{len(photos)} photos in {args.photos}", flush=True)
    model = _load_model(args.weights, args.device)
    if args.shards:
        size = _embed_shards(args, photos, model)
    elif world > 1:
        raise InputError("Several processes share a folder of shards; give --shards ROWS as well.")
    else:
        size = _embed_file(args, photos, model)
    if not rank:
        print(f"in {args.out}, {size / 1e6:.1f} MB")
        example = model.schema.names[0] if model.schema is not None else 0
        print(
            f"Next: agman search --index {args.out} --weights {args.weights} --photo PHOTO "
            f"--attribute {example}"
        )
    if world > 1:
        dist.destroy_process_group()


def _embed_file(args: argparse.Namespace, photos: ImageStore, model: RetrievalModel) -> int:
    """Write an index of one file; its bytes."""
    from agman.index import PhotoIndex

    index = PhotoIndex.build(
        model,
        photos,
        batch_size=args.batch_size,
        skip_bad=args.skip_bad,
        progress=not args.quiet,
    )
    index.save(args.out)
    _embedded(index.embeddings.shape, index.skipped)
    return Path(args.out).stat().st_size


def _embed_shards(args: argparse.Namespace, photos: ImageStore, model: RetrievalModel) -> int:
    """Write a folder of shards, together with the other processes; its bytes."""
    from agman.shards import embed_shards, place

    rank, _ = place()
    try:
        shards = embed_shards(
            model,
            photos,
            args.out,
            rows=args.shards,
            batch_size=args.batch_size,
            skip_bad=args.skip_bad,
            progress=not args.quiet,
        )
    except InputError as error:
        if rank:  # the first says the same
            raise SystemExit(2) from error
        raise
    if not rank:
        earlier = len(shards.skipped) - len(shards.problems)
        more = [f"{earlier} photos in an earlier run"] if earlier else []
        _embedded(shards.shape, [*shards.problems, *more])
        print(f"{len(shards.counts)} shards ", end="")
    return sum(file.stat().st_size for file in Path(args.out).glob("shard_*"))


def _embedded(shape: Sequence[int], skipped: Sequence[str]) -> None:
    for sentence in skipped:
        print(f"left out: {sentence}")
    n_photos, attributes, width = shape
    print(f"{n_photos} photos under {attributes} attributes ({width} numbers each), ", end="")


def index(args: argparse.Namespace) -> None:
    from agman.engines import build_engine, engine_file
    from agman.shards import Shards

    shards = Shards.open(args.shards)
    chosen = None if args.attribute is None else [_attribute_of(shards, args.attribute)]
    folder = Path(args.shards) / args.engine
    given = {"n_cells": args.n_cells, "n_links": args.n_links}
    build_engine(
        shards,
        folder,
        args.engine,
        attributes=chosen,
        progress=not args.quiet,
        **{name: number for name, number in given.items() if number is not None},
    )
    built = sum(engine_file(folder, a, args.engine).is_file() for a in range(shards.shape[1]))
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(
        f"{args.engine} of {built} of {shards.shape[1]} attributes, {len(shards)} photos, in "
        f"{folder}, {size:.1f} MB"
    )
    print(
        f"Next: agman search --index {args.shards} --engine {args.engine} --weights MODEL "
        "--photo PHOTO --attribute NAME"
    )


def _attribute_of(shards: Shards, wanted: str) -> int:
    """The id of an attribute that shards know by name or number."""
    names = shards.manifest.attributes
    if wanted in names:
        return names.index(wanted)
    if wanted.isdigit() and int(wanted) < len(names):
        return int(wanted)
    known = ", ".join(name or str(number) for number, name in enumerate(names))
    raise InputError(f"There is no attribute {wanted!r} in these shards; they have {known}.")


def search(args: argparse.Namespace) -> None:
    from agman.index import PhotoIndex

    if args.png and not args.photos:
        raise InputError("--png needs --photos, the folder that was indexed, to show them.")
    model = _load_model(args.weights, args.device)
    index = PhotoIndex.load(args.index, model)
    given = {"n_probe": args.n_probe, "ef_search": args.ef_search}
    given = {name: number for name, number in given.items() if number is not None}
    if args.engine in ("ivf", "hnsw") and Path(args.index).is_dir():
        index = index.open_engine(Path(args.index) / args.engine, **given)
    else:
        index = index.with_engine(args.engine, **given)
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


def export(args: argparse.Namespace) -> None:
    from agman.export import TOLERANCE, export

    model = _load_model(args.weights, "cpu")
    difference = export(model, args.out, classification=args.classification)
    size, pixels = Path(args.out).stat().st_size / 1e6, model.preprocessing.size
    print(
        f"{args.out}, {size:.1f} MB, for photos of {pixels} x {pixels} pixels\n"
        f"Its answers differ from PyTorch's by at most {difference:.1e} (allowed: {TOLERANCE:.0e})"
    )
    if model.schema is not None:
        names = ", ".join(f"{i} {name}" for i, name in enumerate(model.schema.names))
        print(f"Attributes: {names}")


# -------------------------------------------------------------------------------------- data


def data(args: argparse.Namespace) -> None:
    from agman.datasets import CSNTriplets

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
        stores = [data.images] if isinstance(data, CSNTriplets) else _stores(data)
        print(_described(data))
    if not args.labels_only:
        _open_all(stores, args.quiet)


def _stores(data: RetrievalData) -> list[ImageStore]:
    """The images of each part that has rows."""
    tables = (data.train, data.valid.queries, data.test.queries)
    return [table.images for table in tables if len(table)]


def _described(data: Data) -> str:
    """Counts of the training rows, of the other parts, and what cannot be learned."""
    from agman.attributes import RetrievalData

    parts = zip(("train", "valid", "test"), _parts_of(data), strict=True)
    lines = [f"  {name}: {part}" for name, part in parts]
    if not isinstance(data, RetrievalData):
        return "\n".join([f"{data.schema.name}: {len(data.images):,} photos in triplets", *lines])
    train = str(data.train) if len(data.train) else f"{data.name}: nothing to train on"
    return "\n".join([train, *_notes(data.train), "Parts", *lines])


def _parts_of(data: Data) -> tuple[str, str, str]:
    """Each part of a data set in a few words."""
    from agman.attributes import RetrievalData

    if not isinstance(data, RetrievalData):
        train, valid, test = (
            f"{len(part):,} triplets" for part in (data.train, data.valid, data.test)
        )
        return train, valid, test

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


# --------------------------------------------------------------------------------- reproduce


def reproduce(args: argparse.Namespace) -> None:
    from agman.experiments import reproduce

    asked = {
        "epochs": args.epochs,
        "triplets_per_epoch": args.triplets,
        "batch_size": args.batch_size,
        "backbone": args.backbone,
        "weights": args.weights,
        "size": args.size,
    }
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if args.weights == "none":
        changes["weights"] = None
    data = _experiment_data(args)
    labelled = _labelled(data, _prepared(args))
    reproduce(
        args.experiment,
        data,
        results=Path(args.out or Path(args.runs) / f"{args.experiment}.json"),
        runs=Path(args.runs),
        labelled=None if labelled is None else labelled.test,
        variants=args.variants,
        seeds=args.seeds,
        changes=changes,
        device=_device(args.device),
        dry_run=args.dry_run,
        yes=args.yes,
        progress=not args.quiet,
    )


def _experiment_data(args: argparse.Namespace) -> Data:
    """What an experiment is run on: the drawn lab, a catalogue, or a prepared folder."""
    from agman.datasets import read_csv, split_by_image

    data = _prepared(args)
    if data == "lab":
        return _lab(args.size or 96, args.quiet)
    if not Path(data).exists():
        raise InputError(
            f"There is no {data}; prepare it with the script of that name in data_scripts, or name "
            "what it made with --data."
        )
    kind = _kind(data)
    return split_by_image(read_csv(data)) if kind == "csv" else _read_folder(data, kind, None)


def _prepared(args: argparse.Namespace) -> str:
    """The data that were named, or where those of the experiment are looked for."""
    from agman.experiments import DATA

    name = DATA[args.experiment]
    return args.data or (name if name == "lab" else f"data/{name}")


# ---------------------------------------------------------------------------- models and doctor


def grade(args: argparse.Namespace) -> None:
    try:
        from agman.course.grading import feedback_folder, grade_folder
        from agman.course.student import Limits
    except ModuleNotFoundError as error:  # `resource` or fork, on Windows
        raise InputError(
            f"`agman grade` needs Linux or macOS ({error}); on Windows run it in WSL"
        ) from error

    limits = Limits(
        seconds=args.seconds, total_seconds=15 * args.seconds, memory=args.memory * 1024**2
    )
    grades = grade_folder(args.submissions, args.assignment, args.out, limits, not args.quiet)
    print(f"{len(grades)} submissions: {args.out}, and pages in {feedback_folder(args.out)}")
    for given in grades:
        if given.problem:
            print(f"  {given.student}: {given.problem}")


def models(args: argparse.Namespace) -> None:
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


def doctor(args: argparse.Namespace) -> None:
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
