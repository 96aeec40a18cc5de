"""The engine ray: the same rows as in this process, and when a machine of the cluster is lost."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from atelier.bench.cluster import RayWorkers
from atelier.core.errors import ResourceError

from .conftest import Bench


def test_without_ray_it_is_one_sentence(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ResourceError, match=r"needs the package ray, .*pip install 'atelier\[cluster\]'"):
        bench.run(engine=RayWorkers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_machine_has_the_same_rows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines with one processor each; one ends after a third of the cells."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    bench.run("whole")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second: Any = cluster.add_node(num_cpus=1)
    lost = []

    def listen(event: Any) -> None:
        if event.done == 8:
            cluster.remove_node(second, allow_graceful=False)
            lost.append(event.done)

    try:
        engine = partial(RayWorkers, address=cluster.address)
        found = bench.run(engine=engine, jobs=2, progress=listen)
    finally:
        cluster.shutdown()
    assert lost == [8]
    assert (found.done, found.failed) == (24, 0)
    assert bench.rows() == bench.rows("whole")
