"""Curation of training records: readers, profile, cleaning, duplicates, alignment, mixes."""
