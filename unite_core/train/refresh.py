"""Hard negatives mined anew while a model trains, every `refresh_steps` steps.

The run stops after such a step, with a checkpoint, mines with the model as it is there, and goes on
from the checkpoint with the new negatives, beside those that the records came with. They are
`negatives-STEP.npy` in the run's folder, so that a run that is killed later finds them, and one
that is killed before they are whole mines them again from the same checkpoint.
"""

# Shapes: N pairs, k mined negatives of each at most.

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.pairs import Pair, PairDataset, PairTable, Pick
from ..distributed import barrier, processes
from ..files import replacing
from ..model.embedder import UniteEmbedder
from .callbacks import StopToMine
from .checkpoints import load_weights
from .config import TrainConfig

__all__ = ["MakeMiner", "MinedPairs", "Miner", "fit", "negatives_miner"]


Miner = Callable[[UniteEmbedder, PairDataset, str, Path], np.ndarray]
"""(model, pairs, media root, folder for its vectors) -> [N, k] numbers of the pairs whose
candidates are the hard negatives of each pair, -1 for none; the same in all processes."""
MakeMiner = Callable[[Mapping[str, Any]], Miner]
"""What `stage.refresh` becomes, such as `unite_core.search.NegativeMiner`."""


def negatives_miner(config: TrainConfig, make: MakeMiner | None) -> Miner | None:
    """The miner of a run, None for none; ValueError where the stage asks for one that is not given.

    Raises what `make` raises for fields that it does not know.
    """
    if config.stage.refresh_steps is None:
        return None
    if make is None:
        raise ValueError(
            "refresh_steps needs a miner: train(config, miner=unite_core.search.NegativeMiner)"
        )
    return make(config.stage.refresh)


class MinedPairs(torch.utils.data.Dataset):
    """Pairs whose hard negatives are those of their records, then candidates of other pairs.

    Args: rows [N, k] as a `Miner` returns them. A teacher's scores are left out.
    """

    def __init__(self, pairs: PairDataset, rows: np.ndarray):
        self.pairs, self.rows = pairs, rows

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | Pick) -> Pair:
        number = key.index if isinstance(key, Pick) else key
        pair = self.pairs[number]
        mined = [self.pairs[row].candidate for row in self.rows[number].tolist() if row >= 0]
        negatives = [*pair.negatives, *mined]
        if isinstance(key, Pick):
            negatives = [negatives[n] for n in key.negatives]
        return pair._replace(negatives=negatives, scores=())

    @property
    def table(self) -> PairTable:
        """As `PairDataset.table`, mined negatives counted."""
        table = self.pairs.table
        return table._replace(negatives=table.negatives + (self.rows >= 0).sum(axis=1))

    @property
    def grouped(self) -> bool:
        """As `PairDataset.grouped`."""
        return self.pairs.grouped

    @property
    def families(self) -> tuple[np.ndarray, np.ndarray]:
        """As `PairDataset.families`."""
        return self.pairs.families


def fit(trainer, config: TrainConfig, checkpoint: str | None, miner: Miner | None) -> None:
    """Train to the end from a checkpoint, or from the start where there is none.

    Args
        miner  see `negatives_miner`; None: train once, with the negatives of the records
    ValueError where negatives are missing that were mined before the checkpoint.
    """
    if miner is None:
        trainer.train(resume_from_checkpoint=checkpoint)
        return
    every, pairs = config.stage.refresh_steps, trainer.train_dataset
    trainer.add_callback(StopToMine(every))
    while True:
        if checkpoint is not None:
            rows = _negatives(trainer, config, Path(checkpoint), miner, pairs)
            if rows is not None:
                trainer.train_dataset = trainer.sampler.dataset = MinedPairs(pairs, rows)
        trainer.optimizer = None  # made anew, with what the checkpoint says
        trainer.train(resume_from_checkpoint=checkpoint)
        step = trainer.state.global_step
        after = Path(config.output, f"checkpoint-{step}")
        barrier()
        if step % every or step >= trainer.state.max_steps or not after.is_dir():
            break  # at the end, or stopped by its scores
        checkpoint = str(after)
    trainer.train_dataset = pairs


def _negatives(trainer, config: TrainConfig, checkpoint: Path, miner: Miner,
               pairs: PairDataset) -> np.ndarray | None:  # fmt: skip
    """The mined negatives that training from a checkpoint goes on with; mined if not there yet."""
    step = int(checkpoint.name.rsplit("-", 1)[-1])
    mined_at = step - step % config.stage.refresh_steps
    file = Path(config.output, f"negatives-{mined_at}.npy")
    if not mined_at:
        return None
    if not file.is_file() and mined_at < step:
        raise ValueError(
            f"{file} is missing, which {checkpoint} was trained with: put it back, or remove the "
            f"checkpoints after step {mined_at}"
        )
    barrier()  # all have looked
    if not file.is_file():
        load_weights(checkpoint, trainer.model)
        folder = Path(config.output, "mining")
        device, half = trainer.args.device.type, trainer.args.bf16
        with torch.autocast(device, torch.bfloat16, enabled=half):
            rows = miner(trainer.model.embedder, pairs, config.media_root, folder)
        if processes()[0] == 0:
            with replacing(file) as partial, partial.open("wb") as stream:
                np.save(stream, rows)
            shutil.rmtree(folder)
        barrier()
    return np.load(file, mmap_mode="r")
