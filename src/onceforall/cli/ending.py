"""What an error means for whoever runs a command: one line, where it is not a fault of this program."""

from __future__ import annotations

from onceforall.errors import UserError

_NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "bad_alloc", "ALLOC_FAILED",
              "can't start new thread")
_WHOLE = ("could not create a primitive",  # oneDNN; of its other failures it says more
          "[enforce fail a")  # torch, where memory is too short for its message


def line_of(error: Exception) -> UserError | None:
    """The line for a dead worker or for too little memory; None for any other error."""
    from onceforall.data.serve import died  # imports torch

    text = str(error).strip()
    if isinstance(error, RuntimeError) and (worker := died(error)) is not None:
        return worker
    told = isinstance(error, RuntimeError) and (text in _WHOLE or any(words in text for words in _NO_MEMORY))
    if told or isinstance(error, MemoryError):
        reason = text.splitlines()[-1] if text else type(error).__name__  # of a worker's traceback the last line
        return UserError("memory", f"there is too little ({reason})",
                         "take a smaller batch (mini_batch_train, mini_batch_valid), smaller pictures or fewer workers")
    return None
