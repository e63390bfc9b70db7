"""Preference objectives as one algebra: scores, a comparison, a target, weights, and terms beside it.

    loss = sum over terms of  weight * (sum of values over the step) / (sum of counts over the step)
    value of a pair = omega * [ q * right(s_w, s_l) + (1 - q) * wrong(s_w, s_l) ]

Read in this order:

    score.py divergences.py tokens.py   s: what a response scores; the shape of its log-ratio; which tokens count
    links.py targets.py                 right and wrong: from scores to a loss; q: how far the label is believed
    pairwise.py weights.py              a pair is a group of two: score, compare, believe, weigh, average
    rules.py noise.py                   weights, factors and targets found for every pair
    unpaired.py                         answers judged one by one
    batchwise.py batch_beta.py seen.py  what reads the whole step, or remembers the steps before
    listwise.py terms.py                whole lists; likelihoods, and what every part of a loss is asked
    preset.py presets*.py options.py    for each paper, the parts it is made of; every option once
    compose.py metrics.py               from a recipe to one loss, and what is logged about it

Everything here is a pure function of tensors: values per group, unreduced, so that the training loop alone decides what
they are divided by.
"""
