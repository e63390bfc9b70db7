"""Anything that scores."""
