"""`python ray_nodes.py N [NAME=PORT]`: a Ray cluster of N nodes on this machine, as a process; it ends with its standard input.

It prints the cluster's address, and waits for lines: `kill` ends the last node as a power cut would, `add` starts another.
`ray_client_server_port=10001` serves ray:// there, `dashboard_port=8265` the Jobs API.
"""

import contextlib
import os
import signal
import sys

import psutil
from ray.cluster_utils import Cluster

NODE = {
    "num_cpus": 1,
    "num_gpus": 0,
    "object_store_memory": 80 * 2**20,
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
    "node_ip_address": "127.0.0.2",  # Ray takes 127.0.0.1 for the machine's outer address
}


def processes_of(node):
    """Return the processes of a node, the trainings on it included."""
    found = []
    for kind in node.all_processes.values():
        for started in kind:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(started.process.pid)
                found += [root, *root.children(recursive=True)]
    return found


def cut_power(processes):
    """End processes at once; what they started meanwhile, too."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def main(count, output, service=""):
    cluster = Cluster(shutdown_at_exit=False)
    nodes = []
    name, _, port = service.partition("=")
    special = (
        {name: int(port), "include_dashboard": name == "dashboard_port", "dashboard_host": "127.0.0.2"}
        if port
        else {}
    )
    try:
        nodes.append(cluster.add_node(**NODE | special))
        nodes += [cluster.add_node(**NODE) for _ in range(count - 1)]
        print(cluster.address, file=output, flush=True)
        for line in sys.stdin:
            if line.strip() == "kill":
                cut_power(processes_of(nodes.pop()))
            else:
                nodes.append(cluster.add_node(**NODE))
            print("done", file=output, flush=True)
    finally:
        cut_power([process for node in reversed(nodes) for process in processes_of(node)])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    main(int(sys.argv[1]), output, *sys.argv[2:])
