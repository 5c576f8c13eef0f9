"""The emoji corpus: real text, images and videos from package registries (DESIGN §4)."""
