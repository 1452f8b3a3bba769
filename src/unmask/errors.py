"""The one exception for what a user can mend."""


class UserError(Exception):
    """A mistake in the user's input (config, image, mask, checkpoint, file).

    Its text is one sentence that names the file or key, what is wrong and what would be right. The command line
    prints it without a traceback and exits with code 2.
    """
