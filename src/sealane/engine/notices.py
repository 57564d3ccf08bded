"""What goes before every answer to a question, while what the engine knows may not be what there is."""

from sealane.engine.engine import Engine
from sealane.engine.errors import ReadOnlyError


def notice(engine: Engine) -> str:
    """Empty: answers are of what there is."""
    if engine.hold:
        return f"the daemon is read-only: {engine.hold}"
    missing = len(engine.reconciler.orphans)
    what = "1 live endpoint" if missing == 1 else f"{missing} live endpoints"
    return f"the store is incomplete: it lacks {what}" if missing else ""


def refuse_if_blind(engine: Engine) -> None:
    """Raises ReadOnlyError where any answer would be of an empty store."""
    if engine.is_blind:
        raise ReadOnlyError(
            f"the store cannot be used, so that nothing can be said of what there is: {engine.hold}",
            hint="see `sealane status`; networks and containers keep running",
        )
