"""`python -m unite_core VERB ...`, the same as `unite VERB ...`; torchrun needs this form."""

from .cli import main

main()
