"""The training loop, one page long, and what it is set up with.

Two recipes share it: `triplet`, as released, and `all_pairs`, which asks every attribute of every
image and compares all pairs of the batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm

from agman.attributes import AttributeSchema, AttributeTable, QueryGallery, RetrievalData
from agman.checkpoint import load_state, save_state
from agman.datasets import CSNTriplets
from agman.errors import InputError
from agman.evaluation import evaluate, evaluate_triplets
from agman.loading import TapStore, cache_taps, prefetch, prepare
from agman.losses import (
    FixedWeighting,
    LearnedWeighting,
    ReleasedWeighting,
    attribute_classification_loss,
    supervised_contrastive_loss,
    triplet_loss,
)
from agman.memory import keep_memory
from agman.models import Output, RetrievalModel
from agman.provenance import provenance
from agman.sampling import (
    FixedTriplets,
    ImageSampler,
    Triplets,
    TripletSampler,
    TripletSource,
    generator,
    share,
)
from agman.storage import alone_in, read_json, read_tensors, write_json, write_text

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the released FashionAI recipe with its faults repaired.

    Args:
        recipe: "triplet", or "all_pairs" of a batch of images under all their attributes.
        epochs: passes; validated after each.
        triplets_per_epoch: drawn anew each epoch (an epoch of `all_pairs` is all images once).
        batch_size: triplets, or images, per step over all processes.
        learning_rate: of Adam at the start.
        schedule: "step" multiplies the rate by `decay` every `step_epochs` epochs; "cosine"
            lowers it to zero along half a wave; "constant" leaves it.
        step_epochs: see `schedule`.
        decay: see `schedule`.
        weight_decay: decoupled, as in AdamW; 0 is plain Adam.
        margin: of the triplet loss.
        temperature: of the all-pairs loss.
        weighting: of ranking and classification loss: "learned" (bounded), "fixed" (plain sum)
            or "released" (constant, as the authors' scripts end up with).
        target: of the classification: "labelled" marks every attribute the image is labelled
            for; "sampled" only the one of the triplet, as released.
        flip: mirror images at random.
        clip: largest norm of the gradient, or None.
        amp: "auto", "off", "bf16" or "fp16"; "auto" is off on a CPU.
        freeze_backbone: train the head only, on taps that are computed once; nothing is flipped.
        seed: of sampling and flipping.
    """

    recipe: str = "triplet"
    epochs: int = 50
    triplets_per_epoch: int = 100_000
    batch_size: int = 16
    learning_rate: float = 1e-4
    schedule: str = "step"
    step_epochs: int = 3
    decay: float = 0.9
    weight_decay: float = 0.0
    margin: float = 0.2
    temperature: float = 0.1
    weighting: str = "learned"
    target: str = "labelled"
    flip: bool = True
    clip: float | None = None
    amp: str = "auto"
    freeze_backbone: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "recipe": ("triplet", "all_pairs"),
            "schedule": ("step", "cosine", "constant"),
            "weighting": ("learned", "fixed", "released"),
            "target": ("labelled", "sampled"),
            "amp": ("auto", "off", "bf16", "fp16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}."
                )
        for name in ("epochs", "triplets_per_epoch", "batch_size", "step_epochs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("learning_rate", "decay", "temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, not {getattr(self, name)}.")
        if self.recipe == "all_pairs" and self.target == "sampled":
            raise InputError(
                'recipe "all_pairs" asks every attribute at once, so target must be "labelled".'
            )


RELEASED = {"weighting": "released", "target": "sampled"}

PRESETS: dict[str, TrainConfig] = {
    "fashionai": TrainConfig(epochs=150),
    "deepfashion": TrainConfig(epochs=50),
    "zappos50k": TrainConfig(epochs=50, triplets_per_epoch=200_000),
    "products": TrainConfig(
        recipe="all_pairs",
        epochs=30,
        triplets_per_epoch=9_600,
        batch_size=128,
        learning_rate=1e-3,
        schedule="cosine",
        freeze_backbone=True,
    ),
    # Both look at as many images, within a tenth: 48,000 in all.
    "lab": TrainConfig(
        recipe="all_pairs", epochs=6, batch_size=48, learning_rate=2e-3, schedule="cosine"
    ),
    "lab_triplets": TrainConfig(
        epochs=6, triplets_per_epoch=2_700, learning_rate=2e-3, schedule="cosine"
    ),
}


class Step(NamedTuple):
    """What one step sees: inputs, ids asked, and labels.

    Args:
        images: (N,) image numbers; for triplets anchors, positives, negatives one after another.
        attributes: (N,) or (N, A) ids asked.
        values: (N, A) value ids, -1 unknown, for `all_pairs`; empty for triplets.
        targets: (N, A) 0 or 1 for the classification loss.
        mirrored: (N,) whether each image is flipped.
    """

    images: np.ndarray
    attributes: Tensor
    values: Tensor
    targets: Tensor
    mirrored: Tensor


class Objective(nn.Module):
    """A model with its losses: what is trained, and what several processes share.

    Args:
        model: what gives the embeddings.
        config: which losses.
        accumulate: see `train`.
    """

    def __init__(self, model: RetrievalModel, config: TrainConfig, accumulate: int = 1) -> None:
        super().__init__()
        self.model, self.config, self.accumulate = model, config, accumulate
        self.spread = math.inf  # of the last batch
        kinds = {"learned": LearnedWeighting, "released": ReleasedWeighting}
        if getattr(model, "classifier", None) is None:
            self.weighting: nn.Module = FixedWeighting(ranking=1.0)
        elif config.weighting == "fixed":
            self.weighting = FixedWeighting(ranking=1.0, classification=1.0)
        else:
            self.weighting = kinds[config.weighting]("ranking", "classification")

    def forward(self, inputs: Any, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of the whole batch, and its parts, from this process's rows."""
        output = self._in_parts(inputs, step.attributes)
        embedding = output.embedding.float()
        self.spread = _spread(embedding.detach(), self.config.recipe)
        if self.config.recipe == "triplet":
            anchor, positive, negative = map(_of_all_processes, embedding.chunk(3))
            losses = {"ranking": triplet_loss(anchor, positive, negative, self.config.margin)}
        else:
            rows, values = _of_all_processes(embedding), _of_all_processes(step.values)
            temperature = self.config.temperature
            losses = {"ranking": supervised_contrastive_loss(rows, values, temperature)}
        if output.logits is not None:
            logits = _of_all_processes(output.logits.float())
            targets = _of_all_processes(step.targets)
            losses["classification"] = attribute_classification_loss(logits, targets)
        return self.weighting(losses), losses

    def _in_parts(self, inputs: Any, attributes: Tensor) -> Output:
        """The model's output for all rows; activations are held for one part at a time."""
        together = 3 if self.config.recipe == "triplet" else 1  # a triplet stays whole
        rows = torch.arange(len(attributes), device=attributes.device).view(together, -1)
        n_parts = min(self.accumulate, rows.shape[1])
        if n_parts == 1:
            return self.model(inputs, attributes)
        # A loss of all pairs needs all embeddings before any gradient, so a part is computed
        # twice: now, where it keeps nothing, and again on the way back.
        parts = [rows[:, share(rows.shape[1], k, n_parts)].reshape(-1) for k in range(n_parts)]
        compute = functools.partial(
            checkpoint,
            self.model,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), _averages_stay(self.model)),
        )
        outputs = [compute(_rows(inputs, part), attributes[part]) for part in parts]
        order = torch.cat(parts).argsort()
        embedding = torch.cat([output.embedding for output in outputs])[order]
        logits = [output.logits for output in outputs if output.logits is not None]
        return Output(embedding, None, torch.cat(logits)[order] if logits else None)


def _of_all_processes(own: Tensor) -> Tensor:
    """The rows of all processes, one after another, though their numbers may differ.

    Every process then computes the loss of the whole batch, and the gradient goes to its own rows.
    """
    rank, world = processes()
    if world == 1:
        return own
    if own.requires_grad:
        # The gradient of the batch is the sum over processes; DistributedDataParallel takes the
        # mean, which is right for the weights of the losses: every process has all of theirs.
        own.register_hook(lambda gradient: gradient * world)
    counts = [torch.zeros(1, dtype=torch.long, device=own.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([len(own)], device=own.device))
    padded = own.new_zeros(int(max(counts)), *own.shape[1:])
    padded[: len(own)] = own.detach()
    blocks = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(blocks, padded)
    rows = [block[:count] for block, count in zip(blocks, counts, strict=True)]
    rows[rank] = own
    return torch.cat(rows)


@contextlib.contextmanager
def _averages_stay(model: nn.Module) -> Iterator[None]:
    """Batch normalisation leaves its running averages alone."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum


def _rows(inputs: Any, rows: Tensor) -> Any:
    """Some of the images, or of their taps."""
    if isinstance(inputs, Tensor):
        return inputs[rows]
    return {level: taps[rows] for level, taps in inputs.items()}


def _alone_in_its_run_folder(train: Callable[_P, _R]) -> Callable[_P, _R]:
    """Refuse a second training in a run folder."""

    @functools.wraps(train)
    def guarded(*args: _P.args, **options: _P.kwargs) -> _R:
        rank, _ = processes()
        run: Any = options.get("run")
        with contextlib.nullcontext() if run is None or rank else alone_in(Path(run)):
            return train(*args, **options)

    return guarded


@_alone_in_its_run_folder
@keep_memory()
def train(
    model: RetrievalModel,
    data: RetrievalData | CSNTriplets,
    config: TrainConfig | None = None,
    *,
    run: str | Path | None = None,
    triplets: TripletSource | None = None,
    accumulate: int = 1,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Train a model, keep the best epoch by its score in validation, and load it back.

    The score is MAP (micro); for published triplets it is the share of them that is ranked right.
    Start it under `torchrun` to use several processes. The batch is shared by them, evenly or not,
    and its loss is computed from the embeddings of all, so N processes train what one does. So do
    the parts of `accumulate`. The one exception is batch normalisation that is being trained: it
    takes its statistics from each part by itself.

    With a run folder, the same call after an interruption goes on after the last whole epoch, on
    a CPU to the same bits; it may go on with other numbers of processes and parts.

    Args:
        model: from `create_model`, on the device to train on.
        data: its `train` part is learned, its `valid` part chooses the epoch.
        config: how to train.
        run: folder for `config.json`, `log.jsonl`, `last.pt` and `best.safetensors`.
        triplets: where triplets come from, if not from `data.train`.
        accumulate: parts that each process computes its rows of a batch in, one after another,
            so that they need less memory; each part is computed forward twice.
        progress: show bars.

    Returns:
        One dictionary per epoch: losses, `map_micro` and `map_macro` or `triplet_accuracy` of the
        validation, seconds (those of the first epoch count what is computed once, as taps are).

    Raises:
        InputError: the data admits no training, the folder holds another run, or the loss is
            no longer a number; or another process trains in the folder.
    """
    config = config or TrainConfig()
    if accumulate < 1:
        raise InputError(f"accumulate must be at least 1, not {accumulate}.")
    rank, world = processes()
    if world > 1:
        dist.barrier()  # the first has taken the run folder and cleaned it
    device = next(model.parameters()).device
    model.schema = data.schema
    started = time.perf_counter()
    if config.freeze_backbone:
        data = _with_taps(model, data, progress and not rank)
    objective = Objective(model, config, accumulate).to(device)
    objective.to(memory_format=torch.channels_last)
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, config.learning_rate, weight_decay=config.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=_precision(config, device) is torch.float16)
    folder = None if run is None else RunFolder(run, model, config)
    history = [] if folder is None else folder.resume(objective, optimizer, scaler)
    shared = DistributedDataParallel(objective) if world > 1 else objective
    steps = Steps.of(data, config, triplets)
    own = share(steps.config.batch_size, rank, world)
    best = _best_state(model, history, folder)
    warned = bool(rank)

    for epoch in range(len(history), config.epochs):
        _training_mode(model, config)
        sums: dict[str, Any] = {}
        loaded = steps.load(epoch, model, own)
        bar = tqdm(loaded, f"epoch {epoch + 1}", steps.per_epoch, disable=not progress or rank > 0)
        for number, (step, batch) in enumerate(bar):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch + number / steps.per_epoch)
            inputs = _flipped(prepare(model, batch), step.mirrored)
            with _autocast(config, device):
                loss, parts = shared(inputs, step)
            _refuse_nan(loss, epoch, number)
            warned = warned or _warn_of_collapse(objective.spread, epoch, number)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if config.clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(trained, config.clip)
            scaler.step(optimizer)
            scaler.update()
            for name, part in {"loss": loss, **parts}.items():
                sums[name] = sums.get(name, 0.0) + part.detach() / steps.per_epoch
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if rank == 0:
            means = {name: float(total) for name, total in sums.items()}
            row = {"epoch": epoch + 1, **means, **_validate(model, data)}
            row["seconds"] = time.perf_counter() - started
            history.append(row)
            if _is_best(history):
                best = _copy_state(model)
            if folder is not None:
                folder.keep(objective, optimizer, scaler, history)
        if world > 1:
            dist.barrier()
        started = time.perf_counter()
    if best is not None:
        model.load_state_dict(best)
    if world > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)
    model.eval()
    return history


class Steps:
    """The steps of each epoch, drawn from the training rows by the config's recipe."""

    def __init__(
        self, table: AttributeTable, config: TrainConfig, triplets: TripletSource | None = None
    ) -> None:
        self.table, self.config = table, config
        self.labelled = torch.from_numpy(table.labelled())
        if config.recipe == "all_pairs":
            self.images = ImageSampler(table, config.seed)
            drawn = len(np.unique(table.image))
        else:
            self.triplets = triplets or TripletSampler(
                table, config.triplets_per_epoch, config.seed
            )
            drawn = len(self.triplets.epoch(0).attributes)
        if drawn < config.batch_size:
            self.config = config = replace(config, batch_size=drawn)
        self.per_epoch = drawn // config.batch_size

    @classmethod
    def of(
        cls,
        data: RetrievalData | CSNTriplets,
        config: TrainConfig,
        triplets: TripletSource | None = None,
    ) -> Steps:
        """The steps of a data set: its labelled rows, or its published triplets.

        Raises:
            InputError: the data admits no step of the recipe.
        """
        if isinstance(data, RetrievalData):
            return cls(data.train, config, triplets)
        if config.recipe != "triplet" or not len(data.train):
            raise InputError(
                f"{data.schema.name}: training needs a list of triplets and the recipe "
                f'"triplet", but there are {len(data.train)} triplets and the recipe is '
                f"{config.recipe!r}."
            )
        listed = FixedTriplets(Triplets(*data.train.T), config.seed, config.triplets_per_epoch)
        return cls(compared_images(data, "train"), config, triplets or listed)

    def load(self, epoch: int, model: RetrievalModel, part: slice) -> Iterator[tuple[Step, Any]]:
        """Steps of an epoch with their images, this process's part of each batch."""
        device, size = next(model.parameters()).device, model.preprocessing.size

        def load(step: Step) -> tuple[Step, Any]:
            on_device = Step(step.images, *(column.to(device) for column in step[1:]))
            return on_device, self.table.images.load(step.images, size)

        return prefetch(load, self.draw(epoch, part))

    def draw(self, epoch: int, part: slice) -> Iterator[Step]:
        """Steps of an epoch without their images."""
        draw = self._all_pairs if self.config.recipe == "all_pairs" else self._triplets
        return draw(epoch, part)

    def _rows(self, part: slice) -> Iterator[slice]:
        size = self.config.batch_size
        for start in range(0, self.per_epoch * size, size):
            yield slice(start + part.start, start + min(part.stop, size))

    def _triplets(self, epoch: int, part: slice) -> Iterator[Step]:
        drawn = self.triplets.epoch(epoch)
        mirrored = self._coins(epoch, (3, len(drawn.attributes)))
        for rows in self._rows(part):
            batch = drawn.take(rows)
            images = np.concatenate(batch[1:])
            attributes = torch.from_numpy(np.tile(batch.attributes, 3))
            targets = self.labelled[images]
            if self.config.target == "sampled":
                targets = F.one_hot(attributes, self.labelled.shape[1])
            flips = mirrored[:, rows].reshape(-1)
            yield Step(images, attributes, torch.empty(0), targets, flips)

    def _all_pairs(self, epoch: int, part: slice) -> Iterator[Step]:
        images, values = self.images.epoch(epoch)
        mirrored = self._coins(epoch, (len(images),))
        ids = torch.arange(values.shape[1])
        for rows in self._rows(part):
            chosen = images[rows]
            asked, known = ids.expand(len(chosen), -1), torch.from_numpy(values[rows])
            yield Step(chosen, asked, known, self.labelled[chosen], mirrored[rows])

    def _coins(self, epoch: int, shape: tuple[int, ...]) -> Tensor:
        coins = generator(self.config.seed, epoch, purpose=1).random(shape) < 0.5
        return torch.from_numpy(coins & self.config.flip)


class RunFolder:
    """A run on disk: its config, its log, the state to go on from, and the best weights.

    Raises:
        InputError: the folder holds a run with another model or config.
    """

    def __init__(self, path: str | Path, model: RetrievalModel, config: TrainConfig) -> None:
        self.path, self.model = Path(path), model
        described = {
            "model": model.name,
            "model_config": dataclasses.asdict(model.config),
            "preprocessing": dataclasses.asdict(model.preprocessing),
            "train_config": dataclasses.asdict(config),
        }
        described = json.loads(json.dumps(described))  # tuples become lists, as in the file
        file = self.path / "config.json"
        if file.exists():
            old = read_json(file)
            if not isinstance(old, dict):
                raise InputError(f"{file} describes no run; choose another folder.")
            self._refuse_other_run(old, described)
        else:
            write_json(file, {**described, "provenance": provenance()})
        self.about = described

    def _refuse_other_run(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        for part, settings in new.items():
            if old.get(part) != settings:
                raise InputError(
                    f"{self.path} holds a run whose {part} is {old.get(part)}, not {settings}; "
                    "choose another folder, or give the same settings to go on with it."
                )

    def resume(
        self, objective: Objective, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> list[dict[str, Any]]:
        """Load the last state if there is one, and give the history so far."""
        file = self.path / "last.pt"
        if not file.exists():
            return []
        state = load_state(file)
        try:
            objective.load_state_dict(state["objective"])
            optimizer.load_state_dict(state["optimizer"])
            scaler.load_state_dict(state["scaler"])
            history = [dict(row) for row in state["history"]]
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{file} does not belong to this run ({reason}); choose another folder."
            ) from error
        self._log(history)  # a kill may have come between the state and its log
        return history

    def keep(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        history: list[dict[str, Any]],
    ) -> None:
        """Write the state after an epoch; the best weights first, so that no kill loses them."""
        if _is_best(history):
            self.model.provenance = {**provenance(), **self.about, "history": history}
            self.model.save(self.path / "best.safetensors")
        state = {
            "objective": objective.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "history": history,
        }
        save_state(self.path / "last.pt", state)
        self._log(history)

    def _log(self, history: list[dict[str, Any]]) -> None:
        file, text = self.path / "log.jsonl", "".join(json.dumps(row) + "\n" for row in history)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)


def learning_rate(config: TrainConfig, epoch: float) -> float:
    """The rate at a point of time in epochs, a pure function, so that nothing is to be resumed.

    >>> config = TrainConfig(learning_rate=1.0, epochs=6)
    >>> [round(learning_rate(config, e), 2) for e in (0, 2.9, 3, 5)]
    [1.0, 1.0, 0.9, 0.9]
    """
    if config.schedule == "step":
        return config.learning_rate * config.decay ** (int(epoch) // config.step_epochs)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
    return config.learning_rate


def processes() -> tuple[int, int]:
    """Rank and number of processes; joins the group, and takes a GPU, when started by torchrun."""
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return 0, 1
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        # The others wait while the first prepares data or validates.
        dist.init_process_group(backend, timeout=datetime.timedelta(hours=2))
    return dist.get_rank(), dist.get_world_size()


def compared_images(data: CSNTriplets, split: str) -> AttributeTable:
    """Which image of a split's triplets is labelled for which attribute; not with which value."""
    attribute, *images = getattr(data, split).T
    rows = np.stack([np.tile(attribute, 3), np.concatenate(images)])
    attribute, image = np.unique(rows, axis=1)
    names = data.schema.names
    bare = AttributeSchema(names, tuple(("any",) for _ in names), data.schema.name)
    return AttributeTable(bare, data.images, image, attribute, np.zeros_like(image))


def _with_taps(
    model: RetrievalModel, data: RetrievalData | CSNTriplets, progress: bool
) -> RetrievalData | CSNTriplets:
    """Freeze the backbone and replace every image by its taps; a shared store is tapped once."""
    model.backbone.requires_grad_(False)
    stores: dict[int, Any] = {}

    def tapped(images: Any) -> Any:
        if isinstance(images, TapStore):
            return images
        if id(images) not in stores:
            stores[id(images)] = cache_taps(model, images, progress=progress)
        return stores[id(images)]

    def rows(table: AttributeTable) -> AttributeTable:
        return replace(table, images=tapped(table.images))

    if isinstance(data, CSNTriplets):
        return replace(data, images=tapped(data.images))
    valid = QueryGallery(rows(data.valid.queries), rows(data.valid.gallery))
    return replace(data, train=rows(data.train), valid=valid)


def _training_mode(model: RetrievalModel, config: TrainConfig) -> None:
    model.train()
    if config.freeze_backbone:
        model.backbone.eval()


def _precision(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision, or None for none."""
    if config.amp == "off" or (config.amp == "auto" and device.type == "cpu"):
        return None
    if config.amp == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float16
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[config.amp]


def _autocast(config: TrainConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    dtype = _precision(config, device)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _flipped(inputs: Any, mirrored: Tensor) -> Any:
    """Images, some of them mirrored; taps stay as they are."""
    if not isinstance(inputs, Tensor):
        return inputs
    return torch.where(mirrored[:, None, None, None], inputs.flip(-1), inputs)


def _refuse_nan(loss: Tensor, epoch: int, number: int) -> None:
    if not torch.isfinite(loss):
        raise InputError(
            f"The loss is no longer a number in epoch {epoch + 1}, step {number + 1}; lower the "
            "learning rate, clip the gradient, or switch mixed precision off; earlier epochs "
            "are kept."
        )


COLLAPSED = 1e-4
"""Spread below which nearly all images have the same embedding; a new network has a hundredth."""


def _spread(embedding: Tensor, recipe: str) -> float:
    """Variance of unit embeddings under the same attribute, summed over dimensions: 0 to 1."""
    if recipe == "triplet":  # the three of a triplet are asked the same
        embedding = torch.stack(embedding.chunk(3))  # (3, B, D); for all pairs it is (B, A, D)
    if len(embedding) < 2:
        return math.inf
    return float(embedding.var(0, correction=0).sum(-1).mean())


def _warn_of_collapse(spread: float, epoch: int, number: int) -> bool:
    """Whether the embeddings have collapsed; says so on stderr, bar or not."""
    if spread >= COLLAPSED:
        return False
    tqdm.write(
        f"Warning: all embeddings are nearly the same in epoch {epoch + 1}, step {number + 1} "
        f"(spread {spread:.0e}, healthy is above {COLLAPSED:.0e}); if the loss stays, start again "
        "with a lower learning rate or with pretrained weights.",
        file=sys.stderr,
    )
    return True


def _validate(model: RetrievalModel, data: RetrievalData | CSNTriplets) -> dict[str, float]:
    if isinstance(data, CSNTriplets):
        if not len(data.valid):
            return {}
        triplets = Triplets(*data.valid.T)
        accuracy = evaluate_triplets(model, data.images, triplets, data.schema, progress=False)
        return {"triplet_accuracy": accuracy["overall"]}
    if not len(data.valid.queries):
        return {}
    report = evaluate(model, data.valid.queries, data.valid.gallery, progress=False)
    return {"map_micro": report.map_micro, "map_macro": report.map_macro}


def score(row: Mapping[str, Any]) -> float:
    """What an epoch of a history is chosen by; without validation the last one counts."""
    return float(row.get("map_micro", row.get("triplet_accuracy", row["epoch"])))


def _is_best(history: list[dict[str, Any]]) -> bool:
    """Whether the last epoch is the best so far."""
    scores = [score(row) for row in history]
    return scores[-1] > max(scores[:-1], default=-math.inf)


def _copy_state(model: RetrievalModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _best_state(
    model: RetrievalModel, history: list[dict[str, Any]], folder: RunFolder | None
) -> dict[str, Tensor] | None:
    """The best weights of a resumed run."""
    if not history or folder is None:
        return None
    return read_tensors(folder.path / "best.safetensors")[0]
