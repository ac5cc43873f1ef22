"""A Ray cluster on loopback: a head without CPUs and some raylets, each a node of its own."""

import contextlib
import os

LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or Ray would turn 127.0.0.1 into the machine's outward address
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


@contextlib.contextmanager
def raylets(root, nodes=2, cpus=1, gpus=0):
    """Yield a cluster of raylets. root: a folder from which the workers import the tests."""
    os.environ.update(LOOPBACK)
    from ray.cluster_utils import Cluster

    # a folder of sockets must have a short path
    arguments = {"include_dashboard": False, "num_cpus": 0, "object_store_memory": 80 * 2**20}
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(root)
    cluster = Cluster(initialize_head=True, connect=False, head_node_args=arguments)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=80 * 2**20)
        yield cluster
    finally:
        cluster.shutdown()
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path
