"""What the panel is doing, as one explicit state machine, and how its controls look in each state.

    Idle ── Segment ──> Running ── result ──> Idle
                        Running ── Cancel ──> Cancelling ── stopped ──> Idle
    Idle, Running, Cancelling ── problem ──> Failed ── Segment ──> Running

Neither Qt nor MRML.
"""

from dataclasses import dataclass
from enum import Enum

from slicer.i18n import tr as _


class State(Enum):
    """What the panel is doing."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"
    FAILED = "failed"  # as idle, and the status sentence says what went wrong


MOVES = {
    State.IDLE: {State.RUNNING, State.FAILED},
    State.RUNNING: {State.IDLE, State.CANCELLING, State.FAILED},
    State.CANCELLING: {State.IDLE, State.FAILED},
    State.FAILED: {State.IDLE, State.RUNNING, State.FAILED},
}


@dataclass(frozen=True)
class Look:
    """How the controls of a run are shown.

    Attributes:
        button: text of the one button; isEnabled: whether it can be clicked.
        toolTip: what the button does, or why it cannot be clicked.
        choices: whether the choices above it can be changed.
        progress: whether the progress bar is shown.
    """

    button: str
    isEnabled: bool
    toolTip: str
    choices: bool
    progress: bool


class Machine:
    """Holds the state; a move that the table does not know is an error of the program."""

    def __init__(self):
        self.state = State.IDLE

    @property
    def isActive(self):
        """Whether a run goes on."""
        return self.state in (State.RUNNING, State.CANCELLING)

    def to(self, state):
        """Go to another state."""
        if state not in MOVES[self.state]:
            raise RuntimeError(f"The panel cannot go from {self.state.name} to {state.name}.")
        self.state = state


def lookOf(state, problem="", isBusy=False):
    """The look of the controls.

    Args:
        problem: why nothing can be segmented, as a sentence; empty if it can.
        isBusy: whether another section is working.
    """
    if state is State.RUNNING:
        return Look(_("Cancel"), True, _("Stops at once (Ctrl+Return)."), False, True)
    if state is State.CANCELLING:
        return Look(_("Cancelling …"), False, _("Waits for the network to stop."), False, True)
    if isBusy:
        return Look(_("Segment"), False, _("Another task is running; wait for it."), True, False)
    if problem:
        return Look(_("Segment"), False, problem, True, False)
    return Look(_("Segment"), True, _("Runs the model (Ctrl+Return)."), True, False)
