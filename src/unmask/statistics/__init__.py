"""The statistics of the leaderboards: paired bootstrap, ranks, pooling."""
