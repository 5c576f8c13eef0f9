"""Callbacks of the trainer: steps, bar, TensorBoard, temperature, held-out scores, mining."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from .config import TrainConfig
from .held_out import keep_best

__all__ = [
    "ClampTemperature", "EventFiles", "HeldOut", "PresentSteps", "ProgressBar", "StopToMine",
]  # fmt: skip


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


class StopToMine(TrainerCallback):
    """End training, with a checkpoint, after each step after which hard negatives are mined."""

    def __init__(self, every: int):
        self.every = every

    def on_step_end(self, args, state, control, **_):
        if state.global_step % self.every == 0 and state.global_step < state.max_steps:
            control.should_log = control.should_save = control.should_training_stop = True


class HeldOut(TrainerCallback):
    """Take scores every `eval_steps` steps, before the first and after the last.

    With `keep` "best" the trained weights with the highest `eval_metric` are kept in `best`; where
    `eval_patience` scores in a row were no higher than one before them, training stops.

    Args
        evaluate  takes the scores and logs them
    """

    def __init__(self, config: TrainConfig, evaluate: Callable[[], Mapping[str, float]]):
        self.config, self.evaluate = config, evaluate
        self.metric = f"eval_{config.eval_metric}"

    def on_train_begin(self, args, state, control, **_):
        if state.global_step == 0:
            self.evaluate()

    def on_step_end(self, args, state, control, **_):
        last = state.global_step == state.max_steps
        control.should_evaluate |= last or state.global_step % self.config.eval_steps == 0

    def on_evaluate(self, args, state, control, metrics, model=None, **_):
        if self.metric not in metrics:
            known = ", ".join(sorted(name.removeprefix("eval_") for name in metrics))
            raise ValueError(f"eval_metric is {self.config.eval_metric!r}: must be one of {known}")
        if self.config.keep == "best" and state.is_world_process_zero:
            scores = {"step": state.global_step, **metrics}
            keep_best(args.output_dir, model, metrics[self.metric], scores)
        values = [row[self.metric] for row in state.log_history if self.metric in row]
        waited = len(values) - 1 - values.index(max(values))
        if self.config.eval_patience is not None and waited >= self.config.eval_patience:
            control.should_training_stop = True
            control.should_save = False  # a run that goes on from here would not know that it ended
