"""Callbacks of the trainer: steps, progress bar, TensorBoard, bounds of a temperature."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

__all__ = ["ClampTemperature", "EventFiles", "PresentSteps", "ProgressBar"]


class ProgressBar(TrainerCallback):
    """A bar of plain text that looks the same in a terminal and in a notebook."""

    def on_train_begin(self, args, state, control, **_):
        from tqdm import tqdm

        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="train", mininterval=1.0,
            disable=not state.is_world_process_zero,
        )  # fmt: skip

    def on_step_end(self, args, state, control, **_):
        self.bar.update(state.global_step - self.bar.n)
        # What was measured since the last log is not in a checkpoint: log before saving.
        control.should_log |= control.should_save

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


class EventFiles(TensorBoardCallback):
    """Event files in one folder; what a killed run logged after its last checkpoint is purged."""

    def on_train_begin(self, args, state, control, **_):
        from torch.utils.tensorboard import SummaryWriter

        if not state.is_world_process_zero:
            return
        folder = str(Path(args.output_dir, "tensorboard"))
        self.tb_writer = SummaryWriter(folder, purge_step=state.global_step + 1)


class PresentSteps(TrainerCallback):
    """Log and save as often as this start says, not as the one that wrote the checkpoint."""

    def on_train_begin(self, args, state, control, **_):
        state.compute_steps(args, state.max_steps)


class ClampTemperature(TrainerCallback):
    """Keep a learned temperature in its range after every step."""

    def on_optimizer_step(self, args, state, control, model=None, **_):
        if model.temperature is not None:
            model.temperature.clamp()
