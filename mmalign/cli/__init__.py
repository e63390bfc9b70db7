"""The `mmalign` command.

app.py      train, generate, plan, report, quickstart, ...; what is said when something went wrong
data.py     mmalign data ...: look at rows, convert, score and relabel them
pairs.py    mmalign pairs ...: make preference pairs
parts.py    what several verbs share
"""

from mmalign.cli.app import app, main

__all__ = ["app", "main"]
