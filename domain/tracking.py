"""How long each stage takes, for a sample of requests and for every one that fails."""

import random
from collections.abc import Callable
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


class Trace:
    """The stages of one request so far; reported by `close` when it is sampled or a stage has failed."""

    __slots__ = ("_is_sampled", "_stages", "_tracker", "thread_id")

    def __init__(self, tracker: Tracker, thread_id: str, *, is_sampled: bool) -> None:
        self._tracker = tracker
        self._is_sampled = is_sampled
        self._stages: list[_Stage] = []
        self.thread_id = thread_id

    def stage(self, name: str) -> "_Stage":
        """A context that times the stage of that number (1 to 6, or a sub-stage such as 2.1)."""
        stage = _Stage(name, self._tracker.clock)
        self._stages.append(stage)
        return stage

    def close(self) -> None:
        """The stages have been reported, if they are to be; nothing is left to report."""
        stages, self._stages = self._stages, []
        if self._is_sampled or any(stage.error_type for stage in stages):
            for stage in stages:
                self._tracker.publish(
                    StageTimed(
                        thread_id=self.thread_id,
                        stage=stage.name,
                        duration_s=stage.ended_s - stage.began_s,
                        error_type=stage.error_type,
                    )
                )


class _Stage:
    __slots__ = ("_clock", "began_s", "ended_s", "error_type", "name")

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self._clock = clock
        self.error_type: str | None = None

    def __enter__(self) -> None:
        self.began_s = self.ended_s = self._clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ended_s = self._clock()
        if kind is not None:
            self.error_type = kind.__name__
