"""Memory is kept while it is wanted and given back afterwards."""

import ctypes
import subprocess
import sys
import threading

import pytest

from agman import memory, training
from agman.embedding import batches_of, embed_batches
from agman.evaluation import embed_table
from agman.loading import cache_taps
from agman.memory import keep_memory
from tests import tiny
from tests.test_training import QUICK, model

KEEP = """
import resource, torch
from agman.memory import keep_memory

def fills(size=64):  # pages that the system had to fill for twenty tensors of so many megabytes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(2**18 * size).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def holds():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 2**20

fills()
found = [fills()]
try:
    with keep_memory():
        with keep_memory():
            fills()
        found += [fills(), holds()]
        1 / 0
except ZeroDivisionError:
    found += [holds(), fills(128)]  # smaller ones may find a place among what was kept
print(*found)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="of glibc"
)
def test_memory_is_kept_in_a_block_and_given_back_after_it():
    done = subprocess.run(
        [sys.executable, "-c", KEEP], capture_output=True, text=True, check=True, timeout=300
    )
    before, inside, held, left, after = map(int, done.stdout.split())
    assert inside < before / 5
    assert after > before
    assert left < held - 60


class Libc:
    """Says whether memory is kept."""

    kept = False

    def mallopt(self, option, value):
        if option == memory._MMAP_MAX:
            assert self.kept == (value > 0)  # never set, nor put back, twice
            self.kept = value == 0

    def malloc_trim(self, _):
        assert not self.kept


@pytest.fixture
def libc(monkeypatch):
    found = Libc()
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: found)
    return found


def test_the_last_of_several_threads_gives_it_back(libc):
    inside, go = threading.Event(), threading.Event()

    def other():
        with keep_memory():
            inside.set()
            go.wait(60)

    with keep_memory():
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(60)
    assert libc.kept
    go.set()
    thread.join()
    assert not libc.kept


def test_where_it_cannot_be_kept_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())  # another C library
    for platform in ("linux", "win32"):
        monkeypatch.setattr(memory.sys, "platform", platform)
        with keep_memory(), keep_memory():
            assert memory._blocks == 2
        assert memory._blocks == 0


def test_training_and_embedding_keep_memory(libc, monkeypatch):
    data, network = tiny.data(), model()
    images, kept = data.train.images, []
    load = type(images).load

    def watch(self, *args):
        kept.append(libc.kept)
        return load(self, *args)

    monkeypatch.setattr(type(images), "load", watch)
    passes = batches_of(range(4), 2)
    works = {
        "train": lambda: training.train(network, data, QUICK, progress=False),
        "embed": lambda: embed_table(network, data.train, progress=False),
        "taps": lambda: cache_taps(network, images, progress=False),
        "index": lambda: list(embed_batches(network, images, passes, progress=False)),
    }
    for name, work in works.items():
        kept.clear()
        work()
        assert kept, name
        assert all(kept), name
        assert not libc.kept, name
