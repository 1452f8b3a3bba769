"""Cells of a benchmark computed again from weights and data, and held against what was stored or published."""
