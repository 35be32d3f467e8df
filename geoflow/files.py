"""Files that are whole or not there."""

import hashlib
import os
from pathlib import Path


def write_atomically(file: Path, text: str) -> None:
    """Write a text file under another name and rename it when it is whole."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def sha256(file: Path) -> str:
    """Checksum of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
