"""What ends a command early: a mistake in the input, a cell that cannot be computed, a signal."""


class UserError(Exception):
    """A mistake in the user's input (config, image, mask, checkpoint, file).

    Its text is one sentence that names the file or key, what is wrong and what would be right. The command line
    prints it without a traceback and exits with code 2.
    """


class Skip(Exception):
    """A cell that cannot be computed as a matter of fact (no mask token, no evidence mask): its text is the reason.

    The cell becomes a row with status `skipped` and this reason; nothing is wrong with the input.
    """


class Stopped(Exception):
    """A signal asked a training to end, and its state is kept: the same command goes on from there.

    Its text is one sentence. `code` is the exit code, by the shells' convention 128 and the signal's number: 143 for
    SIGTERM, 130 for SIGINT.
    """

    def __init__(self, text: str, code: int):
        super().__init__(text)
        self.code = code
