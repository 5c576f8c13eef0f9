"""`python -m unite_core.corpora.emoji --root data/emoji`: fetch the packages and build the corpus."""

import argparse

from .build import build

parser = argparse.ArgumentParser(prog="python -m unite_core.corpora.emoji", description=__doc__)
parser.add_argument("--root", default="data/emoji", help="folder of the corpus")
parser.add_argument("--cache", default="data/packages", help="folder of the unpacked packages")
parser.add_argument(
    "--clips", type=int, nargs="*", default=[3], choices=[1, 2, 3, 4],
    help="animation packages to take (160 to 200 MB each; default: %(default)s)",
)  # fmt: skip
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
build(arguments.root, arguments.cache, tuple(arguments.clips), arguments.seed)
