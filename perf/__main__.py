"""`python -m perf [scenario …] [--quick]`: measure, and print one table."""

import argparse
import os
import platform
import sys
import time

from perf import (
    cache_hit,
    coalescing,
    compression,
    failover,
    flapping,
    fleet_miss,
    idle,
    l2_hit,
    limits,
    linger,
    miss,
    redis_commands,
    slots,
    soak,
    stampede,
    streams,
    ttft,
    unread,
    zipf,
)
from perf.figures import Figure, table
from perf.processes import raise_open_files

SCENARIOS = {
    "cache_hit": cache_hit,
    "miss": miss,
    "ttft": ttft,
    "streams": streams,
    "idle": idle,
    "slots": slots,
    "unread": unread,
    "coalescing": coalescing,
    "l2_hit": l2_hit,
    "fleet_miss": fleet_miss,
    "stampede": stampede,
    "redis": redis_commands,
    "zipf": zipf,
    "linger": linger,
    "compression": compression,
    "limits": limits,
    "failover": failover,
    "flapping": flapping,
    "soak": soak,
}


def main() -> None:
    """Run the scenarios; a missed target is printed, and no error."""
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    arguments = parser.parse_args()
    raise_open_files()
    began_s = time.monotonic()
    figures: list[Figure] = []
    try:
        for name in arguments.scenario or SCENARIOS:
            print(f"{name} …", file=sys.stderr, flush=True)
            figures.extend(SCENARIOS[name].measure(is_quick=arguments.quick))
    finally:
        print(table(figures))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"\n{machine}; load average {os.getloadavg()[0]:.1f}; took {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
