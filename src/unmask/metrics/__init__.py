"""Metrics: one file each, `META` and `score(case, **options)`, one number per image."""
