"""Outputs of the official code on small networks, see tests/fixtures/plonk/README.md."""

import json
from pathlib import Path

from safetensors.torch import load_file

FOLDER = Path(__file__).parent / "fixtures" / "plonk"


def tensors(name: str) -> dict:
    """The tensors of a file of the folder, such as `losses` or `odd/forward`."""
    return load_file(FOLDER / f"{name}.safetensors")


def scores() -> dict:
    """The official evaluation's scores of the places in `metrics`."""
    return json.loads((FOLDER / "metrics.json").read_text())
