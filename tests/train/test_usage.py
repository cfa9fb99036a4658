"""How much of the machine training used: what is counted, and what is measured."""

import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_transformer import small, stirred
from torch.utils.flop_counter import FlopCounterMode

from laconic.models.attention import BLOCK
from laconic.models.loss import sliced_cross_entropy
from laconic.train.language import LanguageModule
from laconic.train.recipe import TrainingRecipe
from laconic.train.usage import Usage, peak_bytes, peak_rate, restart_peak


@pytest.mark.parametrize(
    ("seq_len", "changes"),
    [
        (4 * BLOCK, {"window": BLOCK, "ffn": "reglu", "tied": False, "num_kv_heads": 2}),
        (BLOCK, {"window": 256}),
    ],
)
def test_operations_of_a_step_are_those_that_torch_counts(seq_len, changes):
    config = small(**changes)
    model, ids = stirred(config).train(), torch.randint(0, 50, (3, seq_len))
    # What the counter does not know: shapes of the sum, and of what is multiplied
    in_place = {torch.ops.aten.addmm_: lambda _sum, a, b, **_others: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        x_BTD, table = model.trunk(ids)
        sliced_cross_entropy(x_BTD.flatten(0, 1), table, ids.flatten()).backward()
    module = LanguageModule(config, [1] * 50, TrainingRecipe(seq_len=seq_len), "")
    masked = 6 * config.num_layers * 2 * BLOCK * config.num_heads * config.head_dim
    # Blocks of queries compute as many scores again as the window has, and mask them.
    assert counter.get_total_flops() == ids.numel() * (module.operations_per_token() + masked)


def test_figures_are_ratios_of_sums():
    usage = Usage()
    assert usage.figures() == {}
    usage.add(Usage(2.0, 100, 0.5, 30.0, 40.0, 7))
    usage.add(Usage(2.0, 300, 0.0, 10.0, 40.0, 5))
    assert usage.figures() == {
        "tokens_per_second": 100.0,
        "mfu": 0.5,
        "waiting_share": 0.125,
        "peak_bytes": 7,
    }
    assert "peak_bytes" not in Usage(1.0, 1).figures()


def test_the_peak_is_measured_in_a_moment_and_draws_nothing():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert peak_rate(torch.device("cpu"), torch.float32) > 1e8
    assert torch.equal(torch.rand(3), expected)


def test_peak_memory_sees_what_was_freed():
    device = torch.device("cpu")
    restart_peak(device)
    before = peak_bytes(device)
    if before is None:
        pytest.skip("the system does not tell")
    with mmap.mmap(-1, 100_000_000) as fresh:  # no memory that an earlier test gave back to the process
        fresh.write(b"\1" * len(fresh))
    assert peak_bytes(device) > before + 50_000_000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak")
def test_peak_memory_is_not_that_of_the_process_which_started_this_one():
    grown = mmap.mmap(-1, 400_000_000)
    grown[::4096] = b"\1" * len(range(0, len(grown), 4096))
    code = "from laconic.train.usage import *; restart_peak(d := torch.device('cpu')); print(peak_bytes(d))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert int(found.stdout) < len(grown)
