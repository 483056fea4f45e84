"""What the service takes before anybody asks."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from perf.figures import Figure
from perf.processes import PROJECT, simulator, weir

_MIB = 1024 * 1024


def measure(*, is_quick: bool) -> Iterator[Figure]:
    """CPU to import the application, and memory of an idle server."""
    import_s = median(_import_cpu_s() for _ in range(2 if is_quick else 5))
    yield Figure(scenario="idle", name="CPU to import app.main", value=import_s, unit="s", at_most=2.0)
    with simulator() as provider, weir(provider) as service:
        main_bytes, *worker_bytes = service.rss_bytes()
        start_s = service.cpu_s()
    yield Figure(scenario="idle", name="CPU until it serves", value=start_s, unit="s")
    total = main_bytes + sum(worker_bytes)
    yield Figure(scenario="idle", name="resident memory", value=total / _MIB, unit="MiB", at_most=150.0)
    yield Figure(scenario="idle", name="resident memory, worker", value=sum(worker_bytes) / _MIB, unit="MiB")
    yield Figure(scenario="idle", name="resident memory, main process", value=main_bytes / _MIB, unit="MiB")


def _import_cpu_s() -> float:
    before_s = _children_cpu_s()
    subprocess.run([sys.executable, "-c", "import app.main"], cwd=PROJECT, check=True)
    return _children_cpu_s() - before_s


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
