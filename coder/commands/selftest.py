"""`laconic selftest`: that every engine here gives the integers of the specification."""

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..files import PendingFile

if TYPE_CHECKING:
    from ..engines.selftest import Tally

COLUMNS = "{:<6} {:>7} {:>5} {:>14} {:>10} {:>6} {:>8}  {}"
SHOWN_FAULTS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", metavar="E", help="this engine alone (default: every one that is here)")
    parser.add_argument(
        "--full",
        action="store_true",
        help="all cases, batches, numbers of threads and instruction sets, in minutes",
    )
    parser.add_argument("-o", "--output", metavar="OUT", help="write the table there as well")
    parser.add_argument("-f", "--force", action="store_true", help="replace what exists")
    parser.epilog = "Compared are integers: logits, and every intermediate tensor of the reference."


def run(args: argparse.Namespace) -> int:
    lines: list[str] = []
    with ExitStack() as stack:
        pending = stack.enter_context(PendingFile(args.output, args.force)) if args.output else None
        status = _check(args.engine, args.full, lines)
        if pending is not None:
            pending.file.write("".join(f"{line}\n" for line in lines).encode())
            pending.commit()
    return status


def _check(wanted: str | None, full: bool, lines: list[str]) -> int:
    """Print what is found, and keep it in `lines`; returns the exit status."""
    from ..engines.conformance import load_cases
    from ..engines.matrix import run_matrix, runnable
    from ..engines.selftest import HERE, SHORT_WORK, installed, run_short

    shown = HERE

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    def show(tally: "Tally") -> None:
        nonlocal shown
        if tally.environment != shown:
            shown = tally.environment
            say(f"{shown}:")
        threads = "" if tally.threads is None else tally.threads
        say(
            COLUMNS.format(
                tally.engine,
                threads,
                tally.cases,
                f"{tally.compared:,}",
                f"{tally.mismatches:,}",
                tally.coded,
                tally.restored,
                "; ".join(tally.kernels),
            )
        )

    here, missing = installed(wanted)
    cases = [case for case in load_cases() if full or case.macs <= SHORT_WORK]
    say(COLUMNS.format("engine", "threads", "cases", "compared", "mismatches", "coded", "restored", "kernel"))
    tallies = run_short(here, cases, max(case.macs for case in cases))
    for tally in tallies:
        show(tally)
    if full and not tallies[0].mismatches:
        tallies += run_matrix(here, runnable(), show)
    for name, reason in missing.items():
        say(f"{name}: not installed ({reason})")
    return _verdict(tallies, say)


def _verdict(tallies: "list[Tally]", say: Callable[[str], None]) -> int:
    """The last lines; returns the exit status."""
    from ..engines.selftest import REFERENCE

    compared, mismatches = sum(t.compared for t in tallies), sum(t.mismatches for t in tallies)
    say(f"{compared:,} integers compared, {mismatches:,} mismatches")
    if not mismatches:
        coded, restored = sum(t.coded for t in tallies), sum(t.restored for t in tallies)
        kernels = len({(t.engine, kernel) for t in tallies for kernel in t.kernels if kernel != REFERENCE})
        say(f"{kernels} kernels give the same integers; {coded} files coded, all alike; {restored} restored")
    faults = [fault for tally in tallies for fault in tally.faults]
    for fault in faults[:SHOWN_FAULTS]:
        print(f"laconic: error: {fault}", file=sys.stderr)
    if not mismatches:
        return 0
    unsound = {tally.engine for tally in tallies if tally.mismatches}
    sound = sorted({tally.engine for tally in tallies} - unsound)
    remedy = f"choose --engine {' or '.join(sound)}" if sound else "install laconic and its libraries again"
    print(f"laconic: error: do not use engine {', '.join(sorted(unsound))} here: {remedy}", file=sys.stderr)
    return 1
