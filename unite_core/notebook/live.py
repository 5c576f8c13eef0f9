"""What differs where somebody looks on: a notebook in JupyterLab, in contrast to a run of it."""

from __future__ import annotations

import os
import sys
from functools import partialmethod

__all__ = ["bars_on_white", "is_live"]


def is_live() -> bool:
    """Whether this process is the kernel of a notebook that is open in a Jupyter server.

    The server names the notebook in the environment; papermill and nbclient do not.
    """
    return "JPY_SESSION_NAME" in os.environ and "ipykernel" in sys.modules


def bars_on_white() -> None:
    """Show bars of tqdm on stdout from now on: Jupyter has a red ground behind stderr.

    All of them, whoever draws them, hence the change of tqdm's default.
    """
    from tqdm import tqdm

    tqdm.__init__ = partialmethod(tqdm.__init__, file=sys.stdout)
