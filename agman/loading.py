"""From image numbers to what a model takes, on its device, ahead of time.

A frozen backbone gives the same taps every epoch, so they can be computed once: a `TapStore`
stands in for the images, and training and evaluation go on unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from agman.datasets.images import ImageStore
from agman.memory import keep_memory
from agman.models import RetrievalModel

Item = TypeVar("Item")
Result = TypeVar("Result")


class TapStore:
    """Taps of a frozen backbone in place of the images they were computed from.

    Args:
        taps: for each level (N, C, H, W), kept as float16.
        names: of the N images.
    """

    def __init__(self, taps: Mapping[int, Tensor], names: Sequence[str]) -> None:
        self.taps, self.names = dict(taps), names

    def __len__(self) -> int:
        return len(self.names)

    def load(self, indices: Any, size: int) -> dict[int, Tensor]:
        """Taps of the wanted images; their size is that of the images they were made from."""
        rows = torch.as_tensor(np.asarray(indices))
        return {level: taps[rows] for level, taps in self.taps.items()}


def prepare(model: RetrievalModel, batch: Tensor | Mapping[int, Tensor]) -> Any:
    """What `ImageStore.load` gave, on the model's device and as the model takes it."""
    parameter = next(model.parameters())
    if isinstance(batch, Mapping):
        return {level: taps.to(parameter.device).float() for level, taps in batch.items()}
    images = model.preprocessing(batch.to(parameter.device, non_blocking=True))
    return images.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@keep_memory()
def cache_taps(
    model: RetrievalModel, images: ImageStore, *, batch_size: int = 64, progress: bool = True
) -> TapStore:
    """The taps of every image, computed once by the backbone in evaluation mode.

    Args:
        model: its backbone and levels are used.
        images: N images.
        batch_size: images in one pass.
        progress: show a bar.

    Returns:
        A store on the CPU that takes the place of `images` in a table.
    """
    backbone = model.backbone.eval()
    kept: dict[int, list[Tensor]] = {level: [] for level in model.levels}
    batches = np.array_split(np.arange(len(images)), max(1, -(-len(images) // batch_size)))
    size = model.preprocessing.size
    loaded = prefetch(lambda rows: images.load(rows, size), batches)
    for batch in tqdm(loaded, "taps", len(batches), disable=not progress, leave=False):
        for level, taps in backbone(prepare(model, batch), model.levels).items():
            kept[level].append(taps.half().cpu())
    return TapStore({level: torch.cat(parts) for level, parts in kept.items()}, images.names)


def prefetch(
    load: Callable[[Item], Result], items: Iterable[Item], ahead: int = 2
) -> Iterator[Result]:
    """`map(load, items)` with the next few results made in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(load, item))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
