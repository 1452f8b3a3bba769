"""What is measured inside a model: one family of quantities to a file, each a function of attention or tokens.

A quantity gives a number per image, so that intervals are over images everywhere. Where it is a statistic of all images
together (an effective rank, a CKA), the numbers are its influence values: their mean is the statistic, their variance
over n its jackknife variance (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11).
"""
