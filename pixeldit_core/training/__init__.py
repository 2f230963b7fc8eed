"""Training: weight initialization, the flow-matching objective, a small trainer and a classifier of its samples.

Sampling never imports it.
"""
