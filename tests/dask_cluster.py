"""A Dask scheduler with one worker, in this process: prints its address, and ends with its input.

The arguments are modules that cannot be imported here.
"""

import sys

from distributed import LocalCluster

if __name__ == "__main__":
    for name in sys.argv[1:]:
        sys.modules[name] = None  # type: ignore[assignment]
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address=None,
        resources={"GPU": 1},
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
