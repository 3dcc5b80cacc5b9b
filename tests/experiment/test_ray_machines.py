"""Two machines of a Ray cluster, both on this one: each with its own daemon, workers and resources, one of which is lost."""

from __future__ import annotations

import threading

import pytest
from fake_stages import chain_plan
from test_run import Watch, alive, expected, reached, results, wait_until

from evenhand.runner.ray_cluster import RayRunner
from evenhand.store.store import Store

ARMS = (1, 2)


@pytest.fixture
def cluster(monkeypatch):
    """A head with one processor, which the command runs on, and another machine with one."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}.items():
        monkeypatch.setenv(name, value)
    # a connection to an older cluster would be taken for this one's
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    each = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=each)
    yield made, made.add_node(**each)
    made.shutdown()


@pytest.mark.slow
def test_a_lost_machine_costs_what_ran_on_it_since_its_checkpoint(cluster, tmp_path):
    """Both arms wait at their fifth step, one on each machine; then one machine is gone."""
    machines, lost = cluster
    trace, hold = tmp_path / "trace", tmp_path / "hold"
    hold.write_text("[[1, 2], 4]")

    def lose_it():
        wait_until(lambda: all(reached(trace, seed, 4) for seed in ARMS))
        at_work = [reached(trace, seed, 4)[0] for seed in ARMS]
        machines.remove_node(lost, allow_graceful=False)
        wait_until(lambda: len(alive(at_work)) == 1)  # a worker outlives its machine's daemon by a moment
        hold.unlink()

    losing = threading.Thread(target=lose_it)
    losing.start()
    nodes = chain_plan(str(trace), 0, hold=str(hold))
    runner = RayRunner(stages="fake_stages", address=machines.address)
    outcome = runner(nodes, Store(tmp_path / "store"), tmp_path, workers=2, view=Watch())
    losing.join()
    assert outcome.ok, outcome.errors
    assert results(Store(tmp_path / "store"), nodes) == expected()
    assert sorted(len(reached(trace, seed, 4)) for seed in ARMS) == [1, 2], "the arm on the other machine was not disturbed"
    assert [len(reached(trace, seed, 3)) for seed in ARMS] == [1, 1], "what a checkpoint has is not done again"
