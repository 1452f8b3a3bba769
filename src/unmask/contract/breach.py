"""What the checks of a contract raise."""


class Breach(Exception):
    """What a plug-in does against its contract: a sentence with what is wrong and what would be right."""
