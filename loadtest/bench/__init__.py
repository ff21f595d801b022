"""``make bench``: the product's own path, measured beside the raw network in one run.

The engine runs as it does in production, as processes of its own; sink and engine share the machine, which is noisy.
So the contestants take turns (A B A B …), every figure is the median of its rounds, and ratios are taken within a
round before their median is. `scenarios` lists what there is, `command` runs it.
"""
