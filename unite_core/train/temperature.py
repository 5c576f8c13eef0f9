"""A temperature that is trained with the model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..data.modality import Modality, parse_modality

__all__ = ["HIGHEST", "LOWEST", "LearnedTemperature"]


LOWEST, HIGHEST = 0.005, 1.0  # far outside what contrastive models learn or are given


class LearnedTemperature(nn.Module):
    """One trainable temperature, or one for each target modality.

    Parameters are logarithms, in float32: a step is relative, and no temperature becomes negative.

    Args
        initial  a number, or {"text": number, "image": number}; ValueError outside
                 [LOWEST, HIGHEST]
    """

    def __init__(self, initial: float | Mapping[str, float]):
        super().__init__()
        self.codes: tuple[int, ...] = ()
        values = [initial]
        if isinstance(initial, Mapping):
            by_code = {int(parse_modality(name)): tau for name, tau in initial.items()}
            self.codes, values = tuple(by_code), list(by_code.values())
        if not all(LOWEST <= tau <= HIGHEST for tau in values):
            raise ValueError(
                f"a learned temperature must start in [{LOWEST}, {HIGHEST}], not at {initial}"
            )
        self.log = nn.Parameter(torch.tensor(values, dtype=torch.float32).log())

    def forward(self) -> Tensor | dict[int, Tensor]:
        """A scalar, or {modality code: scalar}, as `stage_loss` takes it."""
        values = self.log.exp()
        return dict(zip(self.codes, values, strict=True)) if self.codes else values[0]

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring values back into [LOWEST, HIGHEST], after a step of the optimizer."""
        bounds = self.log.new_tensor([LOWEST, HIGHEST]).log()
        self.log.clamp_(*bounds)

    def named_values(self) -> dict[str, float]:
        """{"temperature": tau}, or {"temperature/text": tau, ...}, for logs and files."""
        values = self.log.detach().exp().tolist()
        if not self.codes:
            return {"temperature": values[0]}
        labels = (f"temperature/{Modality(code).label}" for code in self.codes)
        return dict(zip(labels, values, strict=True))
