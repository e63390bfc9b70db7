"""Preference objectives as one algebra: a score, a comparison, a link, a target, weights, and terms beside it.

    loss = sum over terms of  weight * (sum of values over the batch) / (sum of counts over the batch)
    value of a pair = omega * [ q * link(m) + (1 - q) * link(-m) ],   m = s(better) - s(worse) - gamma

`presets.py` says for each paper which parts it is made of; `compose.py` adds presets up. Everything here is a pure
function of tensors: values per group, unreduced, so that the training loop alone decides what they are divided by.
"""
