"""How calls fail."""


class Error(RuntimeError):
    """A call that failed: `status` is the name of the header's LA_STATUS_*, the text is the library's. This package
    refuses in the same way what it can see of an argument and the library cannot."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status
