"""How long each stage takes, for a sample of requests and for every one that fails."""

import random
from array import array
from collections.abc import Callable, Mapping
from types import TracebackType

from domain.events import Publish, StageTimed


class Tracker:
    """Begins traces; a share of `ratio` of them is reported whatever happens."""

    def __init__(self, ratio: float, publish: Publish, clock: Callable[[], float]) -> None:
        self.publish = publish
        self.clock = clock
        self._ratio = ratio

    def begin(self, thread_id: str) -> "Trace":
        """The trace of one request."""
        return Trace(self, thread_id, is_sampled=random.random() < self._ratio)  # noqa: S311  # a sample, no secret


_NO_ERRORS: Mapping[int, str] = {}


class Trace:
    """The stages of one request so far; reported by `close` when it is sampled or a stage has failed.

    What is kept of a stage that is over is small: most of them are when a stream begins, and it may last for minutes.
    """

    __slots__ = (
        "_durations_s",
        "_error_types",
        "_is_closed",
        "_names",
        "_step_s",
        "_tracker",
        "is_sampled",
        "thread_id",
    )

    def __init__(self, tracker: Tracker, thread_id: str, *, is_sampled: bool) -> None:
        self._tracker = tracker
        self._is_closed = False
        self._step_s = tracker.clock() if is_sampled else 0.0
        self.is_sampled = is_sampled
        self.thread_id = thread_id
        self._names: list[str] = []
        self._durations_s = array("d")
        self._error_types = _NO_ERRORS

    def stage(self, name: str) -> "_Stage":
        """A context that times the stage of that number (1 to 6, or a sub-stage such as 2.1)."""
        self._names.append(name)
        self._durations_s.append(0.0)
        return _Stage(self, len(self._names) - 1, self._tracker.clock)

    def step(self, name: str) -> None:
        """A step is over that began with the trace, or when the one before it ended. It may end after the trace."""
        now_s = self._tracker.clock()
        self._names.append(name)
        self._durations_s.append(now_s - self._step_s)
        self._step_s = now_s
        if self._is_closed:
            self.close()

    def failed(self, name: str, error: Exception) -> None:
        """The step of that name has ended the request."""
        self.stage(name)
        self.ended(len(self._names) - 1, 0.0, type(error).__name__)

    def ended(self, number: int, duration_s: float, error_type: str | None) -> None:
        """The stage that was begun after `number` others is over."""
        if number < len(self._names):
            self._durations_s[number] = duration_s
            if error_type is not None:
                self._error_types = {**self._error_types, number: error_type}

    def close(self) -> None:
        """The stages have been reported, if they are to be; nothing is left to report."""
        names, durations_s, error_types = self._names, self._durations_s, self._error_types
        self._names, self._durations_s, self._error_types = [], array("d"), _NO_ERRORS
        self._is_closed = True
        if self.is_sampled or error_types:
            for number, (name, duration_s) in enumerate(zip(names, durations_s, strict=True)):
                self._tracker.publish(
                    StageTimed(
                        thread_id=self.thread_id,
                        stage=name,
                        duration_s=duration_s,
                        error_type=error_types.get(number),
                    )
                )


class _Stage:
    __slots__ = ("_began_s", "_clock", "_number", "_trace")

    def __init__(self, trace: Trace, number: int, clock: Callable[[], float]) -> None:
        self._trace = trace
        self._number = number
        self._clock = clock

    def __enter__(self) -> None:
        self._began_s = self._clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._trace.ended(self._number, self._clock() - self._began_s, None if kind is None else kind.__name__)
