"""The command line: one registry of commands, each imported when it is called.

Exit status: 0 done, 1 an error, 2 wrong usage, 130 interrupted.
"""

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import NamedTuple, NoReturn


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, as everything else that a user can meet is said."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"laconic: error: {message}; see {self.prog} --help\n")


class Command(NamedTuple):
    """`module` has add_arguments(parser) and run(args) -> exit status."""

    module: str
    help: str


COMMANDS = {
    "compress": Command("coder.commands.compress", "compress files"),
    "decompress": Command("coder.commands.decompress", "restore files, or what is sound of damaged ones"),
    "test": Command("coder.commands.test", "verify files"),
    "info": Command("coder.commands.info", "describe files without decoding them"),
    "cat": Command("coder.commands.cat", "print a file or a range of its bytes"),
    "generate": Command("coder.commands.generate", "print what a checkpoint continues a prompt with"),
    "models": Command("coder.commands.models", "list the checkpoints that are here"),
    "selftest": Command("coder.commands.selftest", "check that every engine here gives the same integers"),
    "eval": Command("bench.evaluate", "code length of files under a checkpoint, and where the bits go"),
    "bench": Command("bench.commands", "measure files beside other compressors"),
    "train": Command("train.commands.train", "from a corpus to a frozen checkpoint"),
    "tokenizer": Command("train.commands.tokenizer", "first stage of train: tokenizer and token shards"),
    "pretrain": Command("train.commands.pretrain", "stage of train: the teacher or the student from text"),
    "distill": Command("train.commands.distill", "stage of train: the student from the teacher"),
    "consolidate": Command("train.commands.consolidate", "end a stage that was cut off, as it stands"),
    "export": Command("train.commands.export", "last stage of train: freeze, reload, measure"),
    "sweep": Command("sweep", "many recipes on one corpus, one table"),
    "quickstart": Command("quickstart", "all of it in minutes, on the standard library's source"),
}
EXTRAS = {
    "train": {
        "torch",
        "pytorch_lightning",
        "datasets",
        "torchmetrics",
        "jsonargparse",
        "tensorboard",
        "yaml",
    },
    "deepspeed": {"deepspeed"},
    "ray": {"ray"},
    "bench": {"zstandard", "brotli", "pyppmd", "matplotlib"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    # Threads that spin while they wait make two busy processes on two cores ten times slower than one, and
    # NumPy's own are never worth it for the small products of a decoder.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if (
        sys.stderr is None
    ):  # closed by the caller: print would write to stdout, into what is restored, instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
    previous = [(number, signal.signal(number, _stop)) for number in _stopping_signals()]
    shown, warnings.showwarning = warnings.showwarning, _warn
    if sys.stderr.isatty():
        from .coder import report

        report.on_wait = lambda what: print(f"\r{what}\x1b[K", file=sys.stderr)
    try:
        return _guarded(arguments)
    finally:
        warnings.showwarning = shown
        for number, handler in previous:
            signal.signal(number, handler)


def _overview() -> str:
    lines = ["usage: laconic COMMAND [ARGUMENTS]", "", "commands (each has its own --help):"]
    lines += [f"  {name:<12} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "  --version    the version of this program"])


def _stopping_signals() -> list[int]:
    """Signals whose default would end the process before temporary files are removed."""
    names = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    return [number for number in names if number is not None and signal.getsignal(number) is signal.SIG_DFL]


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _warn(message: Warning | str, category: type[Warning], *place: object) -> None:
    """A warning as one line, like an error."""
    print(f"laconic: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _guarded(arguments: list[str]) -> int:
    """Run a command; what a user can meet becomes one line on stderr."""
    from .coder.errors import LaconicError

    if sys.stdout is None:  # closed by the caller: `laconic models >&-`
        return _fail("standard output is closed: send it to a file, or to /dev/null")
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _drop_stdout()
        return 1
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((extra for extra, names in EXTRAS.items() if missing in names), None)
        if extra is None:
            raise
        install = f"pip install 'laconic[{extra}]'"
        return _fail(f"{arguments[0]} needs {missing}, which is not installed: {install}")
    except (LaconicError, OSError, MemoryError) as error:
        from .coder.commands.shared import explain

        _drop_stdout()
        return _fail(explain(error))


def _drop_stdout() -> None:
    """What is left in stdout's buffer has nowhere to go; the interpreter would complain on its way out."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    if not arguments:
        print(_overview(), file=sys.stderr)
        return 2
    name = arguments[0]
    if name in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(f"laconic {version('laconic')}")
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"laconic: error: there is no command {name!r}: choose one of {known}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    description = f"{command.help[0].upper()}{command.help[1:]}."
    module = import_module(f".{command.module}", __package__)
    parser = Parser(prog=f"laconic {name}", description=description)
    module.add_arguments(parser)
    if not getattr(module, "TAKES_SETTINGS", False):
        return module.run(parser.parse_args(arguments[1:]))
    words, settings = _take_settings(arguments[1:])
    return module.run(parser.parse_args(words, argparse.Namespace(settings=settings)))


def _take_settings(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part arguments from recipe settings: --section.key VALUE, or --section.key=VALUE."""
    words: list[str] = []
    settings: list[str] = []
    rest = iter(arguments)
    for word in rest:
        name, given, _ = word.partition("=")
        if not name.startswith("--") or "." not in name:
            words.append(word)
        else:
            value = None if given else next(rest, None)
            settings += [word] if value is None else [word, value]
    return words, settings


def _fail(message: str) -> int:
    print(f"laconic: error: {message}", file=sys.stderr)
    return 1
