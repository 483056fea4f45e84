"""Which behaviour the next request to a provider gets, as the control server arranged it."""

from collections import deque
from dataclasses import dataclass, field, replace

from infrastructure.simulator.behaviour import Behaviour


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A behaviour for the next `times` requests, for all until changed when that is None."""

    behaviour: Behaviour
    times: int | None = None


@dataclass(slots=True)
class _Line:
    """Counted entries in their order, and what holds when none is left."""

    counted: deque[Entry] = field(default_factory=deque)
    lasting: Behaviour | None = None

    def take(self) -> Behaviour | None:
        if not self.counted:
            return self.lasting
        entry = self.counted.popleft()
        if entry.times is not None and entry.times > 1:
            self.counted.appendleft(replace(entry, times=entry.times - 1))
        return entry.behaviour


class Schedule:
    """The behaviours arranged for each provider, for one of its models or for all of them."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str | None], _Line] = {}

    def put(self, provider: str, model: str | None, entry: Entry) -> None:
        """Queue a counted entry behind those already there; a lasting one replaces the lasting one."""
        line = self._lines.setdefault((provider, model), _Line())
        if entry.times is None:
            line.lasting = entry.behaviour
        else:
            line.counted.append(entry)

    def take(self, provider: str, model: str) -> Behaviour | None:
        """Return the behaviour of this request, using it up: first what is for its model, then what is for all."""
        for key in ((provider, model), (provider, None)):
            line = self._lines.get(key)
            behaviour = line.take() if line else None
            if behaviour is not None:
                return behaviour
        return None

    def clear(self, provider: str | None = None) -> None:
        """Forget everything arranged for `provider`, for all providers when None."""
        self._lines = {key: line for key, line in self._lines.items() if provider is not None and key[0] != provider}
