"""The same integers and files, whatever evaluates the shipped checkpoint and the conformance cases."""

import platform

import pytest

from laconic.coder.engines.conformance import load_cases
from laconic.coder.engines.matrix import THREADS, run_matrix, runnable
from laconic.coder.engines.selftest import CODINGS, installed


@pytest.mark.slow
def test_engines_threads_batches_chunkings_and_instruction_sets_agree():
    """Each setting encodes, and decodes what the setting before it wrote."""
    names, _ = installed(None)
    assert {"numba", "torch", "numpy"} <= set(names)
    environments = runnable()
    reference, *tallies = run_matrix(names, environments, print)
    assert [fault for tally in (reference, *tallies) for fault in tally.faults] == []
    assert reference.cases == len(load_cases())
    settings = {(tally.engine, tally.threads, tally.environment) for tally in tallies}
    assert (
        len(settings)
        == len(tallies)
        == len(environments) * sum(len(THREADS.get(name, (1,))) for name in names)
    )
    for tally in tallies:
        assert tally.cases == len(load_cases())
        assert tally.compared > 5_000_000
        assert tally.coded == tally.restored == len(CODINGS)
    kernels = {(tally.engine, kernel) for tally in tallies for kernel in tally.kernels}
    if "numba" in names and platform.machine() in ("x86_64", "AMD64"):
        assert len(kernels) >= 4, kernels
