"""The icons corpus: twenty public icon sets, drawn as they are published, with the titles found."""
