"""Write a copy of a model that has the position tokens of layouts, to be trained by any recipe.

python tools/add_position_tokens.py MODEL OUTPUT_DIR --bins 128
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmalign.engine.load import load_model
from mmalign.engine.position_tokens import add_position_tokens
from mmalign.engine.tokenise import load_processor
from mmalign.errors import ConfigError


def write(model: str, output_dir: Path, *, bins: int, seed: int = 0, dtype: str = "float32") -> Path:
    """Read a model and its processor, add the tokens, and write both to `output_dir`, which must be new."""
    if output_dir.exists() and any(output_dir.iterdir()):
        raise ConfigError(f"{output_dir} is not empty; name a new directory")
    weights, processor = load_model(model, dtype=dtype), load_processor(model)
    add_position_tokens(weights, getattr(processor, "tokenizer", processor), bins, seed=seed)
    weights.save_pretrained(output_dir)
    processor.save_pretrained(output_dir)
    return output_dir


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="directory or hub id")
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--bins", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"))
    chosen = parser.parse_args(arguments)
    place = write(chosen.model, chosen.output_dir, bins=chosen.bins, seed=chosen.seed, dtype=chosen.dtype)
    print(f"{place}: {chosen.bins} position tokens added")


if __name__ == "__main__":
    main()
