"""What a user can mend, and what nobody can: a mistake in the input, and a cell that cannot be computed."""


class UserError(Exception):
    """A mistake in the user's input (config, image, mask, checkpoint, file).

    Its text is one sentence that names the file or key, what is wrong and what would be right. The command line
    prints it without a traceback and exits with code 2.
    """


class Skip(Exception):
    """A cell that cannot be computed as a matter of fact (no mask token, no evidence mask): its text is the reason.

    The cell becomes a row with status `skipped` and this reason; nothing is wrong with the input.
    """
