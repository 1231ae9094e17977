"""Every recorded experiment: what is compared, how one run is made, and the table of all runs.

`EXPERIMENTS` names the variants of each experiment. What AG-MAN as released has, and the default
has not (facts about the authors' code, each of which can be switched on alone):

- learned scalars w and w2, which change nothing (`redundant_scalars`); by default left out;
- `dim % n_attributes` mask dimensions that no attribute owns (`unowned_mask`); all are owned;
- division by the length of the vector, NaN for zero (`unguarded_norm`); guarded;
- loss weights that never reach the optimizer (`weighting="released"`); learned, bounded;
- as the class the sampled attribute (`target="sampled"`); all attributes of the image;
- no classification loss on Zappos50k; with it.

Alike in both, and not as the authors have it: start and triplets follow the seed, drawing triplets
always ends, equal scores share their rank (`agman evaluate --ties order` gives each its own), and a
GPU computes in mixed precision.

Width of the embeddings: 64 numbers for every network on the lab backbone, so that the lab compares
equal widths; on ResNet-50 ASENet and ASENet_V2 have 1,024 numbers as published, the others 512.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from agman.attributes import AttributeTable, QueryGallery, RetrievalData
from agman.backbones import SHIPPED
from agman.datasets import CSNTriplets
from agman.errors import InputError
from agman.evaluation import embed_table, evaluate, evaluate_triplets, localize
from agman.loading import TapStore, cache_taps
from agman.metrics import bootstrap_interval, paired_difference, t_interval
from agman.models import MODELS, RELEASED_QUIRKS, Output, RetrievalModel, create_model
from agman.provenance import provenance
from agman.sampling import Triplets
from agman.storage import lock, read_json, read_tensors, remove_leftovers, write_json
from agman.training import (
    PRESETS,
    RELEASED,
    Steps,
    TrainConfig,
    compared_images,
    score,
    train,
)

Data = RetrievalData | CSNTriplets


@dataclass(frozen=True)
class Variant:
    """One row of a table: a network and how it is trained.

    Args:
        name: label of the row.
        model: one of `list_models()`.
        config: how to train; None measures the backbone as it comes, pooled, without a head.
        options: fields of the model's config that are not as usual.
        backbone: see `create_model`.
        weights: of the backbone, see `create_model`.
        size: side of the images in pixels.
    """

    name: str
    model: str
    config: TrainConfig | None
    options: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "resnet50"
    weights: str | None = "imagenet"
    size: int = 224

    @property
    def slug(self) -> str:
        """The name as part of a folder's name."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")


def _compared(
    config: TrainConfig, released: Mapping[str, Any] | None = RELEASED_QUIRKS, **start: Any
) -> tuple[Variant, ...]:
    """The networks of the paper's comparison, all trained alike; `released` are AG-MAN's quirks."""
    variants = [
        Variant("Backbone alone", "triplet", None, **start),
        Variant("Triplet network", "triplet", config, **start),
        Variant("CSN", "csn", config, **start),
        Variant("ASENet", "asenet", config, **start),
        Variant("ASENet_V2", "asenet_v2", config, **start),
        Variant("AG-MAN", "agman", config, **start),
    ]
    if released is not None:
        as_released = replace(config, **RELEASED)  # type: ignore[arg-type]
        variants.insert(5, Variant("AG-MAN as released", "agman", as_released, released, **start))
    return tuple(variants)


_LAB_START: dict[str, Any] = {"backbone": "lab", "weights": "objects", "size": 96}
_PRODUCTS_START: dict[str, Any] = {
    "backbone": "timm/tf_efficientnet_lite0",
    "weights": "imagenet",
    "size": 128,
}


_PUBLISHED_RATE: dict[str, Any] = {
    name: getattr(PRESETS["fashionai"], name)
    for name in ("learning_rate", "schedule", "step_epochs", "decay")
}


def _without(name: str, **options: Any) -> Variant:
    return Variant(name, "agman", PRESETS["lab"], options, **_LAB_START)


def _trained(name: str, preset: str = "lab", model: str = "agman", **settings: Any) -> Variant:
    return Variant(name, model, replace(PRESETS[preset], **settings), **_LAB_START)


def _as_released(name: str, **settings: Any) -> Variant:
    trained = _trained(name, "lab_triplets", **RELEASED, **settings)
    return replace(trained, options=RELEASED_QUIRKS)


EXPERIMENTS: dict[str, tuple[Variant, ...]] = {
    "fashionai": _compared(PRESETS["fashionai"]),
    "deepfashion": _compared(PRESETS["deepfashion"]),
    "zappos50k": _compared(PRESETS["zappos50k"], {**RELEASED_QUIRKS, "classification": False}),
    # Without "as released": its target, one sampled attribute, has no meaning for all pairs.
    "products": _compared(PRESETS["products"], None, **_PRODUCTS_START),
    # The backbone learns too: fewer passes at a lower rate, each of which costs far more.
    "products_unfrozen": tuple(
        replace(v, name=f"{v.name}, unfrozen")
        for v in _compared(
            replace(PRESETS["products"], freeze_backbone=False, epochs=4, learning_rate=3e-4),
            None,
            **_PRODUCTS_START,
        )
        if v.config is not None
    ),
    "lab": _compared(PRESETS["lab"], None, **_LAB_START),
    "lab_triplets": tuple(
        replace(v, name=v.name if "released" in v.name else f"{v.name}, triplets")
        for v in _compared(PRESETS["lab_triplets"], **_LAB_START)
        if v.config is not None
    ),
    "lab_ablations": (
        _without("AG-MAN"),
        _without("without multi-level features", levels=(3,)),
        _without("without classification", classification=False),
        _without("without channel attention", channel_attention=False),
        _without("without the plain gate", spatial_gate=False),
        _without("without the mask", mask=False),
        _without("tanh instead of SiLU", activation="tanh"),
        _without("released: redundant scalars", redundant_scalars=True),
        # Not "unowned mask" alone: eight attributes share 64 dimensions without a remainder.
        _without("released: unguarded norm", unguarded_norm=True),
        _trained("released: constant weighting", weighting="released"),
        # Near ASENet_V2: everything gone that it has not.
        _without(
            "without levels, classification, gate and mask",
            levels=(3,),
            classification=False,
            spatial_gate=False,
            mask=False,
        ),
        _trained("AG-MAN, triplets", "lab_triplets"),
        _trained("released: sampled target, triplets", "lab_triplets", target="sampled"),
    ),
    "lab_recipes": (
        _trained("AG-MAN, triplets, published rate", "lab_triplets", **_PUBLISHED_RATE),
        _trained("AG-MAN, triplets", "lab_triplets"),
        _trained("AG-MAN, a sixth of the images", epochs=1),
        _trained("AG-MAN, constant rate", schedule="constant"),
        # Does the rate explain what ASENet_V2 has over AG-MAN?
        _trained("ASENet_V2, constant rate", model="asenet_v2", schedule="constant"),
        _trained("AG-MAN, never mirrored", flip=False),
        _trained("AG-MAN"),
    ),
    # Seconds count here: to be run on a machine that does nothing else, with --runs of its own.
    "lab_time": (
        _as_released("AG-MAN as released"),
        _as_released("AG-MAN as released, bfloat16", amp="bf16"),
        _trained("AG-MAN"),
        _trained("AG-MAN, bfloat16", amp="bf16"),
        # Rate and temperature were chosen on seeds 0 to 2: judge it on others.
        _trained(
            "AG-MAN, frozen backbone", freeze_backbone=True, learning_rate=5e-3, temperature=0.05
        ),
    ),
}
"""The variants of each experiment, in the order of its table."""

DATA = {
    "fashionai": "FashionAI",
    "deepfashion": "DeepFashion",
    "zappos50k": "Zappos50k",
    "products": "products",
    "products_unfrozen": "products",
    "lab": "lab",
    "lab_triplets": "lab",
    "lab_ablations": "lab",
    "lab_recipes": "lab",
    "lab_time": "lab",
}
"""The prepared data that each experiment needs; experiments on the same data share their runs."""


def planned(
    experiment: str, names: Sequence[str] | None = None, changes: Mapping[str, Any] | None = None
) -> list[Variant]:
    """The variants of an experiment, some of them, or with other settings.

    Args:
        experiment: one of `EXPERIMENTS`.
        names: of variants or kinds of model; None for all.
        changes: fields of `Variant` (backbone, weights, size) or of `TrainConfig` to set in all.

    Raises:
        InputError: there is no such experiment or variant, or a change makes no sense.
    """
    if experiment not in EXPERIMENTS:
        raise InputError(
            f"There is no experiment {experiment!r}; choose one of {', '.join(EXPERIMENTS)}."
        )
    known = EXPERIMENTS[experiment]
    labels = {variant.name: {variant.name, variant.slug} for variant in known}
    for variant in known:
        if variant.config is not None:
            labels[variant.name].add(variant.model)
    for name in names or ():
        if not any(name in own for own in labels.values()):
            offered = ", ".join(f"{variant.name!r}" for variant in known)
            raise InputError(f"{experiment} has no variant {name!r}; choose among {offered}.")
    chosen = [variant for variant in known if not names or labels[variant.name] & set(names)]
    return [_changed(variant, changes or {}) for variant in chosen]


def _changed(variant: Variant, changes: Mapping[str, Any]) -> Variant:
    own = {name: value for name, value in changes.items() if hasattr(variant, name)}
    rest = {name: value for name, value in changes.items() if name not in own}
    config = variant.config and replace(variant.config, **rest)
    return replace(variant, config=config, **own)


# ----------------------------------------------------------------------------------- one run


def run(
    variant: Variant,
    data: Data,
    seed: int,
    *,
    labelled: QueryGallery | None = None,
    folder: Path | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, Any]:
    """Train one variant with one seed and measure it on the test part.

    Args:
        variant: what to train.
        data: what to train and measure on.
        seed: of the network's start and of the sampling.
        labelled: beside triplets, what to measure MAP on, if their images are labelled too.
        folder: of the run, so that the same call goes on after an interruption.
        device: where to train.
        progress: show bars.

    Returns:
        Numbers in percent and seconds, ready for JSON: the test report (MAP with a bootstrap
        interval of the micro mean over queries; triplet accuracy; how much of the attention lies
        in the true regions, where they are known), the score and seconds of each epoch, the
        settings, and the provenance of the start. `wall_seconds` are those of the call that ended
        the run.
    """
    about, started = provenance(), time.perf_counter()
    model = _model(variant, data, seed).to(device)
    history: list[dict[str, Any]] = []
    if variant.config is not None:
        begun = _begun(folder)
        config = replace(variant.config, seed=seed)
        history = train(model, data, config, run=folder, progress=progress)
        if begun is not None and begun["commit"] != about["commit"]:
            about = {**begun, "ended_at_commit": about["commit"]}
        elif begun is not None:
            about = begun
    return {
        "variant": variant.name,
        "seed": seed,
        **_tested(model, data, labelled, progress),
        "width": _output(model).embedding.shape[-1],
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": sum(row["seconds"] for row in history),
        "wall_seconds": time.perf_counter() - started,
        "best_epoch": max(history, key=score)["epoch"] if history else 0,
        "history": [_in_percent(row) for row in history],
        **settings(variant, data, seed),
        "provenance": about,
    }


def _tested(
    model: RetrievalModel, data: Data, labelled: QueryGallery | None, progress: bool
) -> dict[str, Any]:
    """All numbers of the test part, in percent."""
    result: dict[str, Any] = {}
    if isinstance(data, CSNTriplets):
        triplets = Triplets(*data.test.T)
        right = evaluate_triplets(model, data.images, triplets, data.schema, progress=progress)
        accuracy = {name: 100 * share for name, share in right.items()}
        result["triplet_accuracy"] = accuracy.pop("overall")
        result["triplet_accuracy_per_attribute"] = accuracy
        result["triplets"] = len(data.test)
    part = labelled if isinstance(data, CSNTriplets) else data.test
    if part is not None:
        report = evaluate(model, part.queries, part.gallery, progress=progress)
        low, high = bootstrap_interval(torch.from_numpy(report.ap))
        result |= report.to_dict()
        result["chance_micro"] = 100 * float(np.nanmean(report.chance))
        result["map_micro_interval"] = [100 * low, 100 * high]
    if (
        isinstance(data, RetrievalData)
        and _has_regions(data)
        and _output(model).attention is not None
    ):
        found = localize(model, data.test.gallery, data.train, progress=progress)
        result["attention"] = found.to_dict()
    return result


def _has_regions(data: RetrievalData) -> bool:
    return data.train.regions is not None and data.test.gallery.regions is not None


@torch.no_grad()
def _output(model: RetrievalModel) -> Output:
    """What the model gives for a black image under the first attribute, for its shapes."""
    parameter, size = next(model.parameters()), model.preprocessing.size
    image = torch.zeros(1, 3, size, size, device=parameter.device)
    attribute = torch.zeros(1, dtype=torch.int64, device=parameter.device)
    output: Output = model.eval()(image, attribute)
    return output


def _model(variant: Variant, data: Data, seed: int) -> RetrievalModel:
    torch.manual_seed(seed)
    model = create_model(
        variant.model,
        n_attributes=len(data.schema),
        backbone=variant.backbone,
        weights=variant.weights,
        **variant.options,
    )
    model.preprocessing = replace(model.preprocessing, size=variant.size)
    if variant.config is None:
        model.project = nn.Identity()  # of the triplet network: what is left is the pooled backbone
    return model


def _begun(folder: Path | None) -> dict[str, Any] | None:
    """The provenance of a run that was started by an earlier call."""
    if folder is None or not (folder / "config.json").exists():
        return None
    described = read_json(folder / "config.json")
    begun = described.get("provenance") if isinstance(described, dict) else None
    if not isinstance(begun, dict):
        raise InputError(f"{folder / 'config.json'} has no provenance; remove {folder}.")
    return begun


def _in_percent(row: Mapping[str, Any]) -> dict[str, Any]:
    shares = ("map_micro", "map_macro", "triplet_accuracy")
    return {name: 100 * value if name in shares else value for name, value in row.items()}


def settings(variant: Variant, data: Data, seed: int) -> dict[str, Any]:
    """What two runs of a variant must share to be the same run, ready for JSON."""
    config = MODELS[variant.model].Config(
        n_attributes=len(data.schema), backbone=variant.backbone, **variant.options
    )
    train_config = variant.config and dataclasses.asdict(replace(variant.config, seed=seed))
    described = {
        "model": variant.model,
        "model_config": dataclasses.asdict(config),
        "weights": _named_weights(variant.weights),
        "size": variant.size,
        "train_config": train_config,
        "data": described_data(data, variant.size),
    }
    same: dict[str, Any] = json.loads(json.dumps(described))  # tuples become lists, as in the file
    return same


def _named_weights(weights: str | None) -> str | None:
    """Weights of a backbone by name; a file, also a shipped one, by its numbers as well."""
    file = SHIPPED / "objects.safetensors" if weights == "objects" else Path(weights or "")
    if weights in (None, "imagenet") or not file.is_file():
        return weights
    checksum = hashlib.sha256()
    for name, tensor in sorted(read_tensors(file)[0].items()):
        checksum.update(name.encode() + tensor.numpy().tobytes())
    return f"{file.name} sha256 {checksum.hexdigest()[:16]}"


@functools.lru_cache(maxsize=2)
def described_data(data: Data, size: int) -> dict[str, Any]:
    """Name and counts of a data set, and a checksum of all labels; of the lab's pixels too."""
    checksum = hashlib.sha256(repr((data.schema.names, data.schema.n_values)).encode())
    if isinstance(data, CSNTriplets):
        parts = {"train": data.train, "valid": data.valid, "test": data.test}
        checksum.update("\n".join(data.images.names).encode())
        for triplets in parts.values():
            checksum.update(np.ascontiguousarray(triplets).tobytes())
        counts = {name: len(triplets) for name, triplets in parts.items()}
        return {
            "name": data.schema.name,
            "triplets": counts,
            "checksum": checksum.hexdigest()[:16],
        }
    for table in _tables(data).values():
        names = table.images.names
        columns = (table.image.tolist(), table.attribute.tolist(), table.value.tolist())
        rows = (f"{names[i]} {a} {v}" for i, a, v in zip(*columns, strict=True))
        checksum.update("\n".join(rows).encode())
        if data.name == "lab":  # a drawing can change under the same names
            pixels: Any = table.images.load(np.unique(table.image)[:8], size)
            checksum.update(pixels.numpy().tobytes())
    counts = {name: len(np.unique(table.image)) for name, table in _tables(data).items()}
    return {"name": data.name, "images": counts, "checksum": checksum.hexdigest()[:16]}


def _tables(data: RetrievalData) -> dict[str, AttributeTable]:
    return {
        "train": data.train,
        "valid queries": data.valid.queries,
        "valid gallery": data.valid.gallery,
        "test queries": data.test.queries,
        "test gallery": data.test.gallery,
    }


# --------------------------------------------------------------------------------- all runs


def reproduce(
    experiment: str,
    data: Data,
    *,
    results: Path,
    runs: Path,
    labelled: QueryGallery | None = None,
    variants: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    changes: Mapping[str, Any] | None = None,
    device: str = "cpu",
    dry_run: bool = False,
    yes: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Make all runs of an experiment that are not recorded yet, and print their table.

    All variants of one seed come before the next seed. Every run is kept in a folder below `runs`
    as it goes, and joins the results when it is finished: the same call goes on after any
    interruption, and several processes may share the work.

    Args:
        experiment: one of `EXPERIMENTS`.
        data: what to train and measure on.
        results: JSON file of the finished runs.
        runs: folder of all run folders.
        labelled: see `run`.
        variants: names of variants or kinds of model; None for all.
        seeds: one run of each variant for each.
        changes: see `planned`; runs with changes are marked in the table.
        device: where to train.
        dry_run: print the plan and the estimate, and stop.
        yes: start even if the estimate is above `LONG` hours.
        progress: show bars.

    Returns:
        The content of the results file.

    Raises:
        InputError: the results or a run folder hold runs with other settings, the estimate is
            above `LONG` hours, or a run failed (after all others were made).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "One process makes one run here: instead of torchrun, start the command once for each "
            "GPU with --device cuda:0, cuda:1 and so on; they share the work."
        )
    plan = planned(experiment, variants, changes)
    folder = runs / DATA[experiment]
    wanted = [
        (variant, seed)
        for seed in seeds
        for variant in plan
        if variant.config is not None or seed == seeds[0]  # nothing to draw without training
    ]
    recorded = _read_results(results, experiment)
    for variant, seed in wanted:
        _refuse_other_settings(variant, settings(variant, data, seed), recorded, results)
    missing = [(v, s) for v, s in wanted if _find(recorded, v.name, s) is None]
    print(
        f"{experiment}: {len(wanted)} runs, {len(wanted) - len(missing)} in {results}", flush=True
    )
    frozen = [v.config.freeze_backbone for v in plan if v.config is not None]
    # The lab's taps take seconds, which belong to the time of each run.
    if isinstance(data, RetrievalData) and data.name != "lab" and frozen and all(frozen):
        data = _tapped(plan, data, device, progress)
    ahead = [v for v, s in missing if not (folder / f"{v.slug}-{s}" / "result.json").exists()]
    hours = _print_estimate(ahead, data, device) if ahead else 0.0
    if hours > LONG and not yes and not dry_run:
        raise InputError(
            f"These {len(ahead)} runs would take some {hours:.0f} hours on {device}: use a GPU, "
            "fewer --variants or --seeds, or start anyway with --yes."
        )
    failed = []
    for number, (variant, seed) in enumerate(() if dry_run else missing, start=1):
        print(f"{number}/{len(missing)}  {variant.name}, seed {seed}", flush=True)
        own = folder / f"{variant.slug}-{seed}"
        with _held(own / "lock") as free:
            if not free:
                print("    another process is at it", flush=True)
                continue
            made_with = {} if variant in EXPERIMENTS[experiment] else dict(changes or {})
            try:
                result = _finished(variant, data, seed, own, made_with, labelled, device, progress)
            except InputError as error:
                print(f"    failed: {error}", flush=True)
                failed.append(f"{variant.name}, seed {seed}")
                continue
        with _held(folder / "results.lock", wait=True):
            recorded = _recorded(results, experiment, result)
        print(f"    {_line(result)}", flush=True)
    if recorded["runs"]:
        print("\n" + table(recorded, published(experiment)))
    if failed:
        raise InputError(
            f"{len(failed)} of the runs failed ({'; '.join(failed)}), for the reasons above; all "
            "others are kept."
        )
    return recorded


LONG = 24.0
"""Hours above which `reproduce` asks before it starts."""


def _finished(
    variant: Variant,
    data: Data,
    seed: int,
    folder: Path,
    changes: Mapping[str, Any],
    labelled: QueryGallery | None,
    device: str,
    progress: bool,
) -> dict[str, Any]:
    """The result of a run, from its folder if it is there, else after making it."""
    wanted = settings(variant, data, seed)
    for file in (folder / "result.json", folder / "settings.json"):
        if file.exists():
            _refuse_difference(file, read_json(file), wanted, "choose another folder with --runs")
    if (folder / "result.json").exists():
        kept: dict[str, Any] = read_json(folder / "result.json")
        return kept
    remove_leftovers(folder)
    write_json(folder / "settings.json", wanted)
    result = run(
        variant, data, seed, labelled=labelled, folder=folder, device=device, progress=progress
    )
    result["changes"] = dict(changes)
    write_json(folder / "result.json", result)
    (folder / "last.pt").unlink(missing_ok=True)  # large, and nothing is left to go on with
    return result


def _refuse_other_settings(
    variant: Variant, wanted: Mapping[str, Any], recorded: Mapping[str, Any], results: Path
) -> None:
    """Refuse to average runs of other settings, and to compare variants on other data."""
    for old in recorded["runs"]:
        remedy = "choose another file with --out, or give the same settings"
        if old["data"] != wanted["data"]:
            _refuse_difference(results, old, {"data": wanted["data"]}, remedy)
        if old["variant"] == variant.name:
            _refuse_difference(results, _without_seed(old), _without_seed(wanted), remedy)


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    config = settings["train_config"]
    return {**settings, "train_config": config and {**config, "seed": None}}


def _refuse_difference(
    file: Path, old: Mapping[str, Any], wanted: Mapping[str, Any], remedy: str
) -> None:
    for name, value in wanted.items():
        if old.get(name) == value:
            continue
        before, now = old.get(name), value
        if isinstance(before, dict) and isinstance(now, dict):
            name, before, now = next(
                (f"{name}.{key}", before.get(key), now.get(key))
                for key in {**before, **now}
                if key not in before or key not in now or before[key] != now[key]
            )
        raise InputError(
            f"{file} holds a run of {old.get('variant', 'this variant')} whose {name} is "
            f"{before}, not {now}; {remedy}."
        )


def _read_results(file: Path, experiment: str) -> dict[str, Any]:
    """The results so far, none if there is no file."""
    if not file.exists():
        return {"experiment": experiment, "runs": []}
    content = read_json(file)
    if not isinstance(content, dict) or content.get("experiment") != experiment:
        raise InputError(
            f"{file} holds no results of `agman reproduce {experiment}`; choose another file with "
            "--out."
        )
    try:
        for run in content["runs"]:
            _without_seed(run)["data"].keys()
        sorted({(run["variant"], run["seed"]) for run in content["runs"]})
        if content["runs"]:
            table(content)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} holds a run that is not whole ({error!r}); restore the file, or choose "
            "another with --out."
        ) from error
    return content


def _find(recorded: Mapping[str, Any], name: str, seed: int) -> dict[str, Any] | None:
    runs: list[dict[str, Any]] = recorded["runs"]
    return next((run for run in runs if (run["variant"], run["seed"]) == (name, seed)), None)


def _recorded(file: Path, experiment: str, result: dict[str, Any]) -> dict[str, Any]:
    """Add a run to the results file; the order of its runs does not depend on who was first."""
    remove_leftovers(file.parent, glob.escape(file.name))
    content = _read_results(file, experiment)
    if _find(content, result["variant"], result["seed"]) is None:
        content["runs"].append(result)
    place = {variant.name: i for i, variant in enumerate(EXPERIMENTS[experiment])}
    content["runs"].sort(key=lambda run: (place.get(run["variant"], len(place)), run["seed"]))
    write_json(file, content)
    return content


@contextmanager
def _held(file: Path, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone holds a lock, which ends with the block or with the process.

    Args:
        file: the lock; it stays, and names the process that held it last.
        wait: until it is free, instead of giving up.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        opened = open(file, "a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"{file} cannot be written ({error.strerror}); choose another folder with --runs."
        ) from error
    with opened as held:
        free = lock(held.fileno(), wait)
        if free:
            held.truncate(0)
            held.write(f"{os.getpid()}\n")
            held.flush()
        yield free


def _tapped(
    plan: Sequence[Variant], data: RetrievalData, device: str, progress: bool
) -> RetrievalData:
    """The data with the taps of a frozen backbone in place of its images, computed once for all."""
    widest = max(plan, key=lambda variant: len(_levels(variant)))
    model = _model(widest, data, 0).to(device)
    stores: dict[int, Any] = {}

    def tapped(rows: AttributeTable) -> AttributeTable:
        if isinstance(rows.images, TapStore):
            return rows
        key = id(rows.images)
        if key not in stores:
            stores[key] = cache_taps(model, rows.images, progress=progress)
        return replace(rows, images=stores[key])

    valid, test = (
        QueryGallery(tapped(part.queries), tapped(part.gallery)) for part in (data.valid, data.test)
    )
    return replace(data, train=tapped(data.train), valid=valid, test=test)


def _levels(variant: Variant) -> tuple[int, ...]:
    config = MODELS[variant.model].Config(**variant.options)
    return getattr(config, "levels", (3,))


# ---------------------------------------------------------------------------- what it will take


def _print_estimate(variants: Sequence[Variant], data: Data, device: str) -> float:
    """Measure a step of each variant, print what all runs will take, and give it in hours."""
    print(f"Estimate, from a few measured steps on {device}:", flush=True)
    total = 0.0
    for variant in {variant.name: variant for variant in variants}.values():
        step, steps, image, images = measured(variant, data, device)
        hours = (steps * step + images * image) / 3600
        number = sum(other.name == variant.name for other in variants)
        total += number * hours
        print(
            f"  {variant.name}: {steps:,} steps of {step:.3f} s, {images:,} images to embed in "
            f"{1000 * image:.1f} ms each: {hours:.2f} h a run, {number} runs",
            flush=True,
        )
    print(f"  in all {total:.2f} hours (estimated; one run after the other)", flush=True)
    return total


def measured(variant: Variant, data: Data, device: str) -> tuple[float, int, float, int]:
    """What a run consists of, from a few steps and images on the device.

    Returns:
        Seconds of a training step and how many there are; seconds to embed an image and how many
        are embedded, for the validation of each epoch and the test.
    """
    variant = replace(variant, weights=None)  # nothing to download
    model = _model(variant, data, 0).to(device)
    valid, test = (sum(len(np.unique(table.image)) for table in part) for part in _held_out(data))
    step, steps, epochs = 0.0, 0, 0
    if variant.config is not None:
        epochs = variant.config.epochs
        steps = epochs * Steps.of(data, variant.config).per_epoch
        few = 2 if device == "cpu" else 10
        seen = data
        if variant.config.freeze_backbone and isinstance(data, RetrievalData):
            # Taps are computed once a run, and would outweigh a few steps.
            seen = _tapped([variant], data, device, progress=False)
        for n in (1, few):  # the first is slower: memory is found, kernels are chosen
            step = _seconds_per_step(model, seen, variant.config, n)
    queries = _held_out(data)[1][0]
    some = queries.select(np.isin(queries.image, np.unique(queries.image)[:64]))
    for _ in range(2):
        started = time.perf_counter()
        embed_table(model, some, progress=False)
        image = (time.perf_counter() - started) / len(np.unique(some.image))
    return step, steps, image, epochs * valid + test


def _held_out(data: Data) -> tuple[list[AttributeTable], list[AttributeTable]]:
    """The rows that are embedded in validation, and in the test."""
    if isinstance(data, CSNTriplets):
        return [compared_images(data, "valid")], [compared_images(data, "test")]
    valid, test = data.valid, data.test
    return [valid.queries, valid.gallery], [test.queries, test.gallery]


def _seconds_per_step(model: RetrievalModel, data: Data, config: TrainConfig, n: int) -> float:
    """Seconds of a step, averaged over n, of training as it is without validation."""
    size = n * config.batch_size
    few = replace(config, epochs=1, triplets_per_epoch=size)
    if isinstance(data, CSNTriplets):
        data = replace(data, valid=data.valid[:0])
    else:
        rows, nothing = data.train, data.valid.queries.select([])
        if config.recipe == "all_pairs":  # an epoch is all images, so fewer images
            rows = rows.select(np.isin(rows.image, np.unique(rows.image)[:size]))
        data = replace(data, train=rows, valid=QueryGallery(nothing, nothing))
    (row,) = train(model, data, few, progress=False)
    seconds: float = row["seconds"]
    return seconds / Steps.of(data, few).per_epoch


# ---------------------------------------------------------------------------------- the table


def published(experiment: str) -> list[dict[str, Any]]:
    """Published overall figures on the data of an experiment, each with its source."""
    rows = read_json(Path(__file__).with_name("published.json"))["results"]
    return [row for row in rows if row["dataset"] == DATA[experiment]]


class Paired(NamedTuple):
    """Differences of two variants over the seeds that both have.

    Args:
        mean: of the differences, in points.
        low: of their 95 % t interval, NaN for a single seed.
        high: likewise.
        n: seeds.
    """

    mean: float
    low: float
    high: float
    n: int


def paired(results: Mapping[str, Any], a: str, b: str, metric: str = "map_micro") -> Paired:
    """How much better variant `a` is than `b`, seed by seed.

    Args:
        results: what `reproduce` gives and writes.
        a: name of a variant.
        b: name of the variant to compare it with.
        metric: `map_micro`, `map_macro`, `triplet_accuracy`, or another number of a run.

    Raises:
        InputError: they have no seed in common.
    """
    first, second = ({run["seed"]: run for run in _runs_of(results, name)} for name in (a, b))
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        raise InputError(f"{a!r} and {b!r} have no seed in common; make both runs of a seed first.")
    ours, theirs = ([runs[seed][metric] for seed in seeds] for runs in (first, second))
    if len(seeds) == 1:
        return Paired(ours[0] - theirs[0], np.nan, np.nan, 1)
    return Paired(*paired_difference(ours, theirs), len(seeds))


def _runs_of(results: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if run["variant"] == name]


def _line(result: Mapping[str, Any]) -> str:
    parts = []
    if "triplet_accuracy" in result:
        parts.append(f"{result['triplet_accuracy']:.2f} % of triplets right")
    if "map_micro" in result:
        parts.append(f"MAP {result['map_micro']:.2f} % micro, {result['map_macro']:.2f} % macro")
    return ", ".join([*parts, f"{result['wall_seconds']:.0f} s"])


def table(results: Mapping[str, Any], published: Sequence[Mapping[str, Any]] = ()) -> str:
    """The means over seeds in percent, variants by attributes, one block for each metric.

    The means over all attributes have half of their 95 % t interval beside them, where there are
    two seeds or more.

    Args:
        results: what `reproduce` gives and writes, with at least one run.
        published: figures to show below, as `published()` gives them.
    """
    runs = results["runs"]
    blocks = []
    if any("triplet_accuracy" in run for run in runs):
        title, overall = "triplet accuracy in %", {"overall": "triplet_accuracy"}
        blocks.append(_block(runs, title, "triplet_accuracy_per_attribute", overall, published))
    if any("map_micro" in run for run in runs):
        title, overall = "MAP in %", {"micro": "map_micro", "macro": "map_macro"}
        blocks.append(_block(runs, title, "per_attribute", overall, published))
    return "\n\n".join([*blocks, "\n".join(_notes(runs))])


def _block(
    runs: Sequence[Mapping[str, Any]],
    title: str,
    single: str,
    overall: Mapping[str, str],
    published: Sequence[Mapping[str, Any]],
) -> str:
    """One metric: its value for each attribute is in `single`, those over all in `overall`."""
    runs = [run for run in runs if single in run]
    attributes = list(runs[0][single])
    rows = [[title, *attributes, *overall, "seeds"], [*_random(runs[0], single), "-"]]
    for name in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == name]
        means = [f"{np.mean([run[single][a] for run in own]):.2f}" for a in attributes]
        ends = [_with_interval([run[key] for run in own]) for key in overall.values()]
        mark = " *" if any(run["changes"] for run in own) else ""
        rows.append([name + mark, *means, *ends, str(len(own))])
    below = [
        f"published: {row['method']} {row['overall']:.2f} ({row['source']})"
        for row in published
        if title.startswith(row["metric"])
    ]
    return "\n".join([*_aligned(rows), *below])


def _random(run: Mapping[str, Any], single: str) -> list[str]:
    """The row of a random ranking."""
    if single == "per_attribute":
        chance = list(run["chance"].values())
        numbers = [*chance, run["chance_micro"], float(np.mean(chance))]
    else:
        numbers = [50.0] * (len(run[single]) + 1)
    return ["Random ranking", *(f"{number:.2f}" for number in numbers)]


def _with_interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    mean, low, high = t_interval(values)
    return f"{mean:.2f} ± {(high - low) / 2:.2f}"


def _notes(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the signs in the table mean."""
    changed: dict[str, set[str]] = {}
    for run in runs:
        if run["changes"]:
            text = ", ".join(f"{key} {value or 'none'}" for key, value in run["changes"].items())
            changed.setdefault(text, set()).add(run["variant"])
    marked = [
        f"* not the published protocol but {text}: {', '.join(sorted(names))}"
        for text, names in changed.items()
    ]
    return ["± half of the 95 % t interval over seeds", *marked]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
