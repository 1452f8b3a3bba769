"""unmask: how interpretable are vision models pretrained by masked image modelling?"""

__version__ = "0.1.0"
