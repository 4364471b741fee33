"""`distillseg`: the command line. Each command is a file in `commands/`.

Every error is one sentence on standard error and an exit code that is not zero: 1 for what failed,
2 for a command that was written wrongly, 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

from DistillSegLib import __version__
from DistillSegLib.commands import harmless
from DistillSegLib.errors import Cancelled, DistillSegError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one sentence, and knows -1.5e-3 for a number."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self._negative_number_matcher = re.compile(
            r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE
        )

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: {message}; see '{self.prog} --help'.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    Args:
        arguments: as after `distillseg`; those of this process by default.
    """
    debug = False
    try:
        _prepare_process()
        words = sys.argv[1:] if arguments is None else list(arguments)
        options = _parser().parse_args(words, argparse.Namespace(words=words))
        debug = options.debug
        if "" in words:
            raise DistillSegError(
                "One of the arguments is empty; check the variable that should fill it."
            )
        _prepare_messages(debug=debug)
        options.run(options)
        sys.stdout.flush()
        return 0
    except (KeyboardInterrupt, Cancelled):
        return _say(
            "Stopped; finished results were kept and nothing was left half-written.", INTERRUPTED
        )
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:
        if debug:
            traceback.print_exc()
        code = _say(_sentence(problem), FAILED)
        for note in getattr(problem, "__notes__", ()):  # a table, such as a rehearsal's
            print("\n".join(map(harmless, note.splitlines())), file=sys.stderr)
        return code


def _sentence(problem: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(problem, DistillSegError):
        return str(problem)
    if isinstance(problem, MemoryError):
        return "There is not enough memory; close other programs or give a smaller region (--roi)."
    if isinstance(problem, OSError):
        place = f"'{problem.filename}': " if problem.filename else ""
        return f"{place}{problem.strerror or problem}; check the path, space and permissions."
    return (
        f"Something unforeseen went wrong ({type(problem).__name__}: {problem}); repeat with "
        "--debug and report what it prints."
    )


def _parser() -> Parser:
    # here, so that Ctrl-C during these imports is heard like any other
    from DistillSegLib.commands import (
        benchmark,
        compare,
        demo,
        evaluate,
        export,
        packages,
        segment,
        train,
    )

    parser = Parser(
        prog="distillseg",
        description="Small, fast segmentation networks, distilled from large ones.",
        epilog="`distillseg demo` shows it at work; `distillseg COMMAND --help` has examples.",
    )
    parser.add_argument("--version", action="version", version=f"distillseg {__version__}")
    parser.set_defaults(run=lambda options: parser.print_help(), debug=False)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    for command in (demo, segment, compare, packages, train, evaluate, export, benchmark):
        command.add(commands)
    return parser


def _prepare_process() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, or a program without a console
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as we run)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the console cannot show must not stop us
            stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread():
        # `kill` ends like Ctrl-C does, so that temporary files are removed
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _prepare_messages(*, debug: bool) -> None:
    """Without --debug, remarks of libraries stay out of the user's sight."""
    logging.basicConfig(level=logging.INFO if debug else logging.CRITICAL, format="%(message)s")
    warnings.simplefilter("default" if debug else "ignore")


def _say(sentence: str, code: int) -> int:
    print(harmless(" ".join(sentence.split())), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
