"""Why a demo stops."""


class DemoError(Exception):
    """Something did not go as it must; the text is for people, `hint` says what they can do."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint
