"""Ctrl-C, SIGTERM, hang-ups: a training stops at the end of a step and keeps what it has learnt."""

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from geoflow import runtime

HANGUP = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # the end of a remote terminal
SIGNALS = (signal.SIGINT, signal.SIGTERM, *HANGUP)


class Terminated(KeyboardInterrupt):
    """SIGTERM or a hang-up, where Ctrl-C is a KeyboardInterrupt."""


class Stopped(BaseException):
    """Ends Lightning's loop at the end of a step. It is no `Exception`, which Lightning handles."""


def raise_for(number: int, text: str = ""):
    """Raise what a signal means: KeyboardInterrupt, or Terminated."""
    raise (KeyboardInterrupt if number == signal.SIGINT else Terminated)(text)


def tell(text: str) -> None:
    """Print to the terminal, which after a hang-up may be gone."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class Interruptions(contextlib.AbstractContextManager):
    """Remembers the first signal from `watch` on, until the block ends.

    A second Ctrl-C stops at once.

    Elsewhere than in the main thread signals cannot be watched, and nothing is changed.
    """

    def __init__(self):
        self.received: int | None = None
        self.before: dict = {}

    def __enter__(self) -> "Interruptions":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.getsignal(number) for number in SIGNALS}
        return self

    def watch(self) -> None:
        """Begin, after Lightning has set handlers of its own."""
        for number, handler in self.before.items():
            # A signal that is ignored, as under nohup, stays ignored.
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._receive)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return  # schedulers repeat a SIGTERM; the state is being saved
        self.received = number
        if runtime.is_first_process():
            tell("stopping at the end of this step …")

    def stop(self, step: int, steps: int, folder: Path) -> None:
        """End the training, after its state was saved."""
        number = self.received if self.received is not None else signal.SIGTERM  # another process's
        raise Stopped(number, f"step {step:,} of {steps:,} is kept in {folder / 'last.ckpt'}")

    def __exit__(self, kind, error, trace) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if isinstance(error, Stopped):
            raise_for(*error.args)
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__  # Lightning turns Ctrl-C into an exit


@contextlib.contextmanager
def terminated_by_sigterm():
    """Turn SIGTERM and hang-ups into an exception in the block, so that files are closed and locks
    released.
    """
    before: dict = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, *HANGUP):
            # A signal that is ignored, as under nohup, stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, lambda number, _frame: raise_for(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_quietly(_number: int = 0) -> None:
    """Let a process that reads data end without a word when the whole group is terminated."""
    for number in (signal.SIGTERM, *HANGUP):
        signal.signal(number, lambda *_: os._exit(0))
