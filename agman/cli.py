"""The command line: `agman train | evaluate | embed | search | export | data | ...`.

`agman --help` lists all commands; the commands themselves are in `agman.commands`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from agman import commands as do
from agman.errors import InputError

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
  agman train --data data/FashionAI --run runs/fashionai        prepared by data_scripts
  torchrun --nproc-per-node 2 -m -- agman.cli train --data data/FashionAI --run runs/two_gpus

A CSV is split by photo: half to learn from, a sixth to choose the best epoch, a third held back
for the test. Everything goes into the run folder; the same command again goes on after an
interruption, or shows the test again. With torchrun, several processes (one for each GPU) share
the batches; the lone -- keeps torchrun from taking --run for an option of its own.
"""

_EVALUATE = """\
examples:
  agman evaluate --run runs/shop --worst 10
  agman evaluate --weights lab/agman --data lab --json lab.json

MAP is the mean average precision in percent: 100 if all photos of the same value come first.
Compare it with `chance`, what a random ranking gets.
"""

_EMBED = """\
examples:
  agman embed --weights runs/shop --photos photos --out shop.safetensors
  agman embed --weights runs/shop --photos photos --out shop --shards 10000
  torchrun --nproc-per-node 2 -m -- agman.cli embed --weights runs/shop --photos photos \\
        --out shop --shards 10000

With --shards, the index is a folder of files of so many photos each, for more photos than memory
holds. Several processes share the work, and the same command, with any number of processes, goes
on after an interruption.
"""

_INDEX = """\
examples:
  agman index --shards shop --engine ivf
  agman index --shards shop --engine hnsw --attribute color
  agman search --index shop --engine ivf --weights runs/shop --photo new.jpg --attribute color

Needs faiss-cpu. Of the two, ivf never holds all vectors in memory; hnsw holds those of one
attribute while it is built. The same command goes on after an interruption.
"""

_SEARCH = """\
example:
  agman search --index shop.safetensors --weights runs/shop --photo new.jpg \\
        --attribute color -k 20 --photos photos --png found.png
"""

_EXPORT = """\
examples:
  agman export --weights runs/shop --out shop.onnx
  agman export --weights lab/agman --out agman.pt2 --classification

The file takes uint8 RGB images (batch, 3, size, size) and the numbers of the attributes asked,
(batch, asked), and gives unit-length embeddings and attention maps; it normalises the images
itself. It is written only if its answers are PyTorch's.
"""

_DATA = """\
examples:
  agman data check shop.csv --images photos
  agman data check FashionAI --labels-only
  agman data lab
"""


_REPRODUCE = """\
examples:
  agman reproduce lab                                all models on drawn garments
  agman reproduce fashionai --data data/FashionAI --dry-run
  agman reproduce fashionai --data data/FashionAI --variants "AG-MAN" ASENet_V2 --seeds 0

Prints what it will take, estimated from a few measured steps, before it starts. Finished runs are
kept in the file of --out and never made again; the same command goes on after an interruption.
Options that change the settings of the experiment are recorded, and marked in the table.
"""

_GRADE = """\
example:
  agman grade submissions --assignment book/assignments/ranking/ranking.ipynb --out grades.csv

SUBMISSIONS holds a notebook for each student (anna.ipynb) or a folder for each (anna/any.ipynb).
Of a notebook only imports, functions and constants are used, in a process of its own with limits
and without network. The table goes to --out, and a page of feedback for each student to the
folder grades_feedback beside it. What is graded already is kept.
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
    _train_options(command("train", do.train, "train a model on labelled photos", _TRAIN, again))
    _evaluate_options(command("evaluate", do.evaluate, "measure a trained model", _EVALUATE))
    about = "index a folder of photos for search"
    _embed_options(command("embed", do.embed, about, _EMBED, "; run the same command again"))
    about = "build a fast, approximate search over a folder of shards"
    _index_options(command("index", do.index, about, _INDEX, again))
    _search_options(command("search", do.search, "find the photos most like yours", _SEARCH))
    about = "write a trained model as ONNX or as a program of torch.export"
    _export_options(command("export", do.export, about, _EXPORT))
    _data_options(command("data", do.data, "look at a data set before training", _DATA))
    about = "repeat a recorded experiment: all its models, several seeds, one table"
    _reproduce_options(command("reproduce", do.reproduce, about, _REPRODUCE, again))
    about = "grade a folder of notebooks handed in for an assignment"
    _grade_options(command("grade", do.grade, about, _GRADE, again))
    command("models", do.models, "list the models")
    about = "show versions, device, cache and disk: what to send with a bug"
    command("doctor", do.doctor, about)
    return parser


def _train_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to learn from").add_argument
    add(
        "--data",
        metavar="DATA",
        required=True,
        help="lab (drawn garments), a CSV, or a folder in ASEN's or CSN's format",
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
        help="start values: lab, lab_triplets, products, fashionai, deepfashion or zappos50k "
        "(default: lab for lab, products for a CSV, the data set's own otherwise)",
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
    add(
        "--accumulate",
        metavar="N",
        type=_positive,
        default=1,
        help="compute each batch in N parts, one after another: the same step in less memory and "
        "more time (default: 1)",
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
    add(
        "--data",
        metavar="DATA",
        help="for --weights: lab, a CSV, or a folder in ASEN's or CSN's format",
    )
    _csv_options(add)
    add("--split", choices=("test", "valid"), default="test", help="which part (default: test)")
    add(
        "--ties",
        choices=("fair", "order"),
        default="fair",
        help="equal scores count as equally good, or in the order of the gallery as in the "
        "released scripts (default: fair)",
    )
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
        help="folder of photos, its subfolders too, or a .npz of packed images",
    )
    add(
        "--out",
        metavar="FILE",
        required=True,
        help="file to write the index to, such as shop.safetensors; with --shards, a folder",
    )
    add(
        "--shards",
        metavar="ROWS",
        type=_positive,
        help="photos in each file of a folder that a stopped job goes on with (default: one file)",
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


def _index_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--shards",
        metavar="FOLDER",
        required=True,
        help="what `agman embed --shards` wrote; the result goes into a folder in it",
    )
    add("--engine", choices=("ivf", "hnsw"), required=True, help="cells, or a graph of neighbours")
    add("--attribute", metavar="NAME", help="for one attribute only (default: all)")
    add("--n-cells", metavar="N", type=_positive, help="of ivf (default: 2 √photos)")
    add("--n-links", metavar="N", type=_positive, help="of each photo in hnsw (default: 32)")
    add("--quiet", action="store_true", help="no progress bars (default: bars)")


def _search_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--index", metavar="FILE", required=True, help="file or folder that `agman embed` wrote")
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
        "--engine",
        choices=("exact", "flat", "ivf", "hnsw"),
        default="exact",
        help="all but exact need faiss-cpu; ivf and hnsw of a folder are built by `agman index`, "
        "those of a file each time (default: exact)",
    )
    add("--n-probe", metavar="N", type=_positive, help="cells ivf looks into (default: 16)")
    add("--ef-search", metavar="N", type=_positive, help="candidates of hnsw (default: 64)")
    add(
        "--png",
        metavar="FILE",
        help="file for a picture of the result; needs --photos (default: none)",
    )
    add("--photos", metavar="FOLDER", help="folder that was indexed, for --png")
    _machine_options(add)


def _export_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--weights", metavar="MODEL", required=True, help=_WEIGHTS)
    add("--out", metavar="FILE", required=True, help="file to write: NAME.onnx or NAME.pt2")
    add(
        "--classification",
        action="store_true",
        help="keep AG-MAN's classification branch, which a search does not use (default: drop it)",
    )


def _data_options(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="what", metavar="WHAT", dest="what", required=True)
    about = "count attributes and values of a CSV or a data folder, and open every photo"
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


# As in agman.experiments, which would take seconds to import.
_EXPERIMENTS = (
    "fashionai",
    "deepfashion",
    "zappos50k",
    "products",
    "products_unfrozen",
    "lab",
    "lab_triplets",
    "lab_ablations",
    "lab_recipes",
    "lab_time",
)


def _grade_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("submissions", metavar="SUBMISSIONS", help="folder of what students handed in")
    add(
        "--assignment",
        metavar="NOTEBOOK",
        required=True,
        help="the assignment's source notebook, with its hidden tests",
    )
    add("--out", metavar="FILE", required=True, help="table of the points, as CSV")
    add(
        "--seconds",
        metavar="N",
        type=_positive,
        default=20,
        help="for one call of a function (default: 20); 15 times as much for a whole submission",
    )
    add(
        "--memory",
        metavar="N",
        type=_positive,
        default=2048,
        help="megabytes for a student's code (default: 2048)",
    )
    add("--quiet", action="store_true", help="no progress bar")


def _reproduce_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("experiment", choices=_EXPERIMENTS, metavar="EXPERIMENT", help=", ".join(_EXPERIMENTS))
    add(
        "--data",
        metavar="FOLDER",
        help="what a script in data_scripts prepared (default: the experiment's folder in data/; "
        "the lab is drawn)",
    )
    add(
        "--variants",
        "--models",
        metavar="NAME",
        nargs="+",
        help="rows of the table, or kinds of model (default: all)",
    )
    add(
        "--seeds",
        metavar="N",
        nargs="+",
        type=_seed,
        default=[0, 1, 2],
        help="a run of each variant for each (default: 0 1 2)",
    )
    add("--out", metavar="FILE", help="file of the results (default: EXPERIMENT.json in --runs)")
    add("--runs", metavar="FOLDER", default="runs", help="folder of all runs (default: runs)")
    add(
        "--dry-run",
        action="store_true",
        help="say what would be done and how long it takes, and stop (default: start)",
    )
    add(
        "--yes",
        action="store_true",
        help="start what takes more than a day (default: refuse it)",
    )
    about = "other settings than the experiment's"
    add = parser.add_argument_group(about).add_argument
    own = "(default: as the experiment)"
    add("--epochs", metavar="N", type=_positive, help=f"passes over the photos {own}")
    add("--triplets", metavar="N", type=_positive, help=f"triplets in an epoch {own}")
    add("--batch-size", metavar="N", type=_positive, help=f"photos or triplets in a step {own}")
    add("--backbone", metavar="NAME", help=f"see `agman train` {own}")
    add("--weights", metavar="NAME", help=f"see `agman train` {own}")
    add("--size", metavar="N", type=_pixels, help=f"side of the square photos in pixels {own}")
    _machine_options(parser.add_argument_group("where").add_argument)


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
