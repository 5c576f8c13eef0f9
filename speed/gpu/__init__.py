"""The parts of `speed/gpu_check.py`, one module each, and what they share."""
