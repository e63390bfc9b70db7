"""FSDP2 on CPU ranks, with the settings of configs/accelerate/fsdp2.yaml.

accelerate shards on accelerators only, so it is told that these ranks are some; torch's FSDP2 itself runs on CPUs.
"""

import os
from pathlib import Path

import yaml
from accelerate.state import PartialState
from accelerate.utils import DistributedType

SETTINGS = Path(__file__).resolve().parents[1] / "configs" / "accelerate" / "fsdp2.yaml"


def pretend() -> None:
    """Let this rank, which has trained nothing yet, share the weights with the others."""
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    for name, value in yaml.safe_load(SETTINGS.read_text())["fsdp_config"].items():
        os.environ[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
