"""mmalign aligns multimodal models to preferences, computing every prompt once."""

__version__ = "0.1.0"
