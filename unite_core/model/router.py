"""The target modality read from a query's vector: a linear head that stage 2 can train.

It is the first factor of p(c | q) = p(m | q) p(c | q, m), for an index of all modalities. It is
saved beside the model whose vectors it was trained on, and means nothing for those of another.
"""

# Shapes: Q queries, D embedding size, M modalities.

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.modality import Modality
from ..files import replacing
from .checkpoint import locate
from .weights import CheckpointError, check_weights, described_by, read_safetensors

__all__ = ["ROUTER_FILE", "ModalityRouter", "router_file"]


# Queries' vectors lie close together, so what tells their modalities apart is small. AdamW moves a
# weight by the learning rate at most: with a factor this large a few hundred steps are enough.
_SCALE = 500.0
_STEM = "router"
ROUTER_FILE = f"{_STEM}.safetensors"
_HIGHEST = int(Modality.TEXT | Modality.IMAGE | Modality.VIDEO)  # code


def router_file(model: str | Path) -> Path | None:
    """The file of the head trained with a model (folder or hub id); None where there is none."""
    file = locate(model) / ROUTER_FILE
    return file if file.is_file() else None


class ModalityRouter(nn.Module):
    """p(m | q) as a softmax of scale * W q + b over the target modalities m that were trained.

    Args
        dim          D
        codes        [M] different codes of `Modality`; their order is that of the columns
        scale        factor of W q
        temperature  divisor of the cosines in its training, which a factorised score takes; None:
                     there was not one alone
    W [M, D] and b [M] are float32 and start at 0: all modalities are equally likely.
    """

    def __init__(self, dim: int, codes: Sequence[int], scale: float = _SCALE,
                 temperature: float | None = None):  # fmt: skip
        super().__init__()
        self.codes, self.scale = tuple(map(int, codes)), float(scale)
        self.temperature = temperature
        if temperature is not None and not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        valid = len(set(self.codes)) == len(self.codes) > 0
        if not valid or not all(0 < code <= _HIGHEST for code in self.codes):
            raise ValueError(f"codes must be different modalities in 1 ... 7, not {self.codes}")
        self.weight = nn.Parameter(torch.zeros(len(self.codes), dim))
        self.bias = nn.Parameter(torch.zeros(len(self.codes)))

    @property
    def labels(self) -> list[str]:
        """Names of the modalities, in the order of the columns."""
        return [Modality(code).label for code in self.codes]

    def forward(self, vectors: Tensor) -> Tensor:
        """Unit vectors [Q, D] -> logits [Q, M], float32 also under autocast."""
        with torch.autocast(vectors.device.type, enabled=False):
            return F.linear(vectors.float() * self.scale, self.weight, self.bias)

    def columns(self, codes: Tensor) -> Tensor:
        """The column of each modality code; -1 for those without one."""
        columns = torch.full((_HIGHEST + 1,), -1, device=codes.device)
        columns[list(self.codes)] = torch.arange(len(self.codes), device=codes.device)
        return columns[codes]

    @torch.no_grad()
    def log_probabilities(self, vectors: np.ndarray | Tensor) -> np.ndarray:
        """log p(m | q) of queries' unit vectors [Q, D]: [Q, M] float64, columns as in `codes`.

        ValueError for vectors of another size than those that the head was trained on.
        """
        weight, bias = self.weight.double(), self.bias.double()
        rows = torch.as_tensor(vectors, device=weight.device).double()
        if rows.ndim != 2 or rows.shape[1] != weight.shape[1]:
            raise ValueError(
                f"vectors must be [Q, {weight.shape[1]}], not {list(rows.shape)}: the head belongs "
                "to the model that it is saved with"
            )
        return F.linear(rows * self.scale, weight, bias).log_softmax(1).cpu().numpy()

    def save(self, folder: str | Path) -> None:
        """Write router.safetensors into a folder, atomically."""
        from safetensors.torch import save_file

        tensors = {
            "weight": self.weight.detach(), "bias": self.bias.detach(),
            "codes": torch.tensor(self.codes), "scale": torch.tensor(self.scale).double(),
        }  # fmt: skip
        if self.temperature is not None:
            tensors["temperature"] = torch.tensor(self.temperature, dtype=torch.float64)
        with replacing(Path(folder, ROUTER_FILE)) as partial:
            save_file(tensors, partial)

    @classmethod
    def load(cls, folder: str | Path) -> ModalityRouter:
        """Read the head that was trained with a model, on the CPU.

        Args: folder (or hub id) of the model. CheckpointError where it has none, or a damaged one.
        """
        file = router_file(folder)
        if file is None:
            raise CheckpointError(
                f"{locate(folder) / ROUTER_FILE}: no such file. This folder has no router: train "
                "stage 2 with router_weight above 0 on records that ask for two modalities or "
                "more, or fit a probe on vectors of training queries"
            )
        tensors = read_safetensors(file.parent, _STEM)
        with described_by(file):
            codes, scale = tensors.pop("codes").tolist(), tensors.pop("scale").item()
            temperature = tensors.pop("temperature").item() if "temperature" in tensors else None
            router = cls(tensors["weight"].shape[-1], codes, scale, temperature)
        check_weights(tensors, {n: w.shape for n, w in router.state_dict().items()}, file.parent)
        router.load_state_dict(tensors)
        return router.requires_grad_(False).eval()
