"""Where results come from: the hashes of what a run left, the environment that made it, and how long it took."""
