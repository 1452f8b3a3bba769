"""Scores of an explainer that somebody else computed: read, checked against a run, and entered beside its own."""
