"""A callback with which a test interrupts a training."""

from transformers import TrainerCallback


class StopAt(TrainerCallback):
    """Ends training after that step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop |= state.global_step == self.step
