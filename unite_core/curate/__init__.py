"""Modality curation: read any layout, validate, profile, clean, deduplicate, align, mix."""
