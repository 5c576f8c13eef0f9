"""The emoji corpus: pairs and retrieval tasks from published icon packages."""
