"""What instances tell each other on one channel: each message is its kind, a blank, and what there is to say."""

from collections.abc import Callable

from infrastructure.redis.subscriptions import Subscriptions

EVENTS = "weir:events"


class FleetEvents:
    """Tells each listener the messages of its kind.

    What was said before `on_begin` is called, at first and after every gap, has to be read from where it is kept.
    """

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._listeners: dict[bytes, Callable[[bytes], object]] = {}
        self.on_begin: list[Callable[[], None]] = []
        subscriptions.add(EVENTS, self._heard)

    def hear(self, kind: str, listener: Callable[[bytes], object]) -> None:
        """`listener` is told every message of that kind; it raises ValueError for one that makes no sense."""
        self._listeners[kind.encode()] = listener

    def _heard(self, message: bytes) -> None:
        if not message:
            for begin in self.on_begin:
                begin()
            return
        kind, _, said = message.partition(b" ")
        listener = self._listeners.get(kind)
        if listener is None:
            return
        try:
            listener(said)
        except ValueError:
            return
