"""Plans that grow while they run."""

from __future__ import annotations

import pytest
from fake_stages import Node, chain_result, plan

from evenhand.runner.local import run
from evenhand.runner.state import RunState, StageStatus
from evenhand.store.store import Store

ALL = plan(
    Node(name="start", kind="chain", spec={"steps": 2}),
    Node(name="next", kind="chain", spec={"steps": 3}, seed=1, inputs={"p": "start"}),
    Node(name="last", kind="chain", spec={"steps": 3}, seed=2, inputs={"p": "next"}),
)
BROKEN = plan(
    Node(name="broken", kind="fail"),
    Node(name="after", kind="chain", spec={"steps": 1}, inputs={"p": "broken"}),
    Node(name="beyond", kind="chain", spec={"steps": 1}, seed=3, inputs={"p": "after"}),
)


class InTurn:
    """Names a node when the one before it has ended."""

    def __init__(self, nodes):
        self.nodes, self.given = list(nodes), []

    def __call__(self, board):
        if self.given and board.cells[self.given[-1].name].status.open:
            return []
        new = self.nodes[len(self.given) : len(self.given) + 1]
        self.given += new
        left = len(self.nodes) - len(self.given)
        board.coming = {"chain": left} if left else {}
        return new


@pytest.mark.parametrize("workers", [0, 2])
def test_nodes_that_become_known_while_it_runs_are_run(tmp_path, workers):
    store = Store(tmp_path / "store")
    outcome = run(plan(), store, tmp_path, workers=workers, stages="fake_stages", more=InTurn(ALL.nodes))
    assert outcome.status == {"start": StageStatus.DONE, "next": StageStatus.DONE, "last": StageStatus.DONE}
    expected = ""
    for node, seed, steps in zip(ALL.nodes, (0, 1, 2), (2, 3, 3), strict=True):
        expected = chain_result(seed, expected, steps=steps)
        assert (store.path(node.key) / "chain.txt").read_text() == expected


def test_what_is_in_the_store_already_calls_for_the_next_at_once(tmp_path):
    store = Store(tmp_path / "store")
    run(plan(), store, tmp_path, workers=0, stages="fake_stages", more=InTurn(ALL.nodes))
    outcome = run(plan(), store, tmp_path, workers=0, stages="fake_stages", more=InTurn(ALL.nodes))
    assert set(outcome.status.values()) == {StageStatus.CACHED}
    assert len(outcome.status) == 3


def test_a_node_that_becomes_known_after_its_input_failed_is_blocked(tmp_path):
    outcome = run(plan(), Store(tmp_path / "store"), tmp_path, workers=0, stages="fake_stages", more=InTurn(BROKEN.nodes))
    assert outcome.status == {"broken": StageStatus.FAILED, "after": StageStatus.BLOCKED, "beyond": StageStatus.BLOCKED}
    assert outcome.errors["after"] == "needs broken, which failed"


def test_nodes_to_come_count_in_the_time_left():
    board = RunState(ALL.nodes[:1], workers=1, usual={"chain": 10.0})
    assert board.eta() == (10.0, True)
    board.coming = {"chain": 2}
    assert board.eta() == (30.0, True)
    assert board.total == 3
    board.coming = {"judge": 1}
    assert board.eta() == (10.0, False), "a kind that was never seen: at least"
