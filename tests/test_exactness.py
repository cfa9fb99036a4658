"""The shipped checkpoint writes the same bytes, and reads them, whatever evaluates it."""

import hashlib
import itertools
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import laconic

SETTINGS = [
    (engine, threads, environment)
    for engine, threads in itertools.product(("numpy", "torch"), (1, 2))
    for environment in (
        {},
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"ATEN_CPU_CAPABILITY": "default", "NUMBA_CPU_NAME": "generic", "OPENBLAS_CORETYPE": "Haswell"},
    )
]
CODE = """
import sys, laconic
engine, threads, streams, text, foreign = sys.argv[1:]
data = open(text, "rb").read()
for count in streams.split(","):
    blob = laconic.compress(data, engine=engine, threads=int(threads), streams=int(count))
    open(f"{text}.{count}.lac", "wb").write(blob)
    blob = open(f"{foreign}.{count}.lac", "rb").read()
    assert laconic.decompress(blob, engine=engine, threads=int(threads)) == data
"""


@pytest.mark.slow
def test_engines_threads_streams_and_instruction_sets_agree(tmp_path):
    """Each setting encodes, and decodes what the setting before it wrote."""
    source = Path(sysconfig.get_path("stdlib"), "pydoc_data", "topics.py").read_bytes()[:24_000] + bytes(
        range(256)
    )
    streams = "1,7,64"
    for count in streams.split(","):
        blob = laconic.compress(source, streams=int(count))
        assert blob[13] == 1, "the model must code this text, or nothing is shown"
        (tmp_path / f"first.{count}.lac").write_bytes(blob)
    foreign = tmp_path / "first"
    digests = set()
    for number, (engine, threads, environment) in enumerate(SETTINGS):
        text = tmp_path / f"{number}.txt"
        text.write_bytes(source)
        arguments = [engine, str(threads), streams, str(text), str(foreign)]
        subprocess.run(
            [sys.executable, "-c", CODE, *arguments], env={**os.environ, **environment}, check=True
        )
        names = [f"{number}.txt.{count}.lac" for count in streams.split(",")]
        written = b"".join((tmp_path / name).read_bytes() for name in names)
        digests.add(hashlib.sha256(written).hexdigest())
        foreign = text
    assert len(digests) == 1
