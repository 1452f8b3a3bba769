"""The networks: the classifier that is explained, SimMIM around its backbone, checkpoints, architecture rules."""
