import networkx as nx
import numpy as np
import pytest

from reid.naming.decisions import Decision, weight
from reid.naming.groups import Groups, group_items

ITEMS = 14


def history(seed, length=160):
    """Random decisions of three reviewers and a machine, repeats, contradictions and withdrawals among them."""
    random = np.random.default_rng(seed)
    decisions, standing = [], []
    for number in range(length):
        a, b = random.choice(ITEMS, 2, replace=False).tolist()
        answer = str(random.choice(["same", "different", "not_comparable", "unsure"], p=[0.35, 0.5, 0.1, 0.05]))
        basis = str(random.choice(["visual", "machine", "gold"], p=[0.8, 0.15, 0.05]))
        earlier = None
        if standing and random.random() < 0.25:
            earlier = standing.pop(random.integers(len(standing)))
        standing.append(number)
        decisions.append(Decision(a, b, answer, basis, str(random.choice(["x", "y", "z"])), earlier))
    return decisions


def slow_groups(decisions, errors):
    """The definition itself: sum the weights of what still holds, join what is above 0, take components."""
    graph = nx.Graph()
    graph.add_nodes_from(range(ITEMS))
    gone = [decision.supersedes for decision in decisions]
    for a in range(ITEMS):
        for b in range(a):
            about = [d for n, d in enumerate(decisions) if {d.a, d.b} == {a, b} and n not in gone]
            if sum(weight(d, errors) for d in about) > 1e-9:
                graph.add_edge(a, b)
    found = np.empty(ITEMS, int)
    for component in nx.connected_components(graph):
        found[list(component)] = min(component)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_incremental_equals_scratch_equals_the_definition_after_every_decision(seed):
    errors = {"x": 0.01, "y": 0.2}
    groups = Groups(ITEMS, errors)
    sizes = set()
    decisions = history(seed)
    for number, decision in enumerate(decisions, 1):
        groups.add(decision)
        assert (groups.label == group_items(ITEMS, decisions[:number], errors)).all()
        for label in np.unique(groups.label):
            assert sorted(groups.members(label)) == np.nonzero(groups.label == label)[0].tolist()
        sizes.add(len(np.unique(groups.label)))
    assert (groups.label == slow_groups(decisions, errors)).all()
    assert len(sizes) > 3  # groups grew and fell apart


def test_a_different_within_a_group_is_a_conflict_that_changes_nothing():
    groups = Groups(4)
    for a, b in ((0, 1), (1, 2), (2, 3)):
        groups.add(Decision(a, b, "same"))
    groups.add(Decision(0, 3, "different"))
    assert groups.conflicts() == [(0, 3)]
    assert groups.label.tolist() == [0, 0, 0, 0]


def test_the_weakest_joins_are_a_minimum_cut():
    groups = Groups(7)
    for a, b in ((0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (2, 6)):
        groups.add(Decision(a, b, "same"))
    groups.add(Decision(2, 3, "same", "machine"))
    groups.add(Decision(0, 5, "different"))
    split = groups.split(0, 5)
    graph = nx.Graph()
    for pair, total in groups.totals.items():
        if total > 0:
            graph.add_edge(*pair, capacity=total)
    value, (near, _) = nx.minimum_cut(graph, 0, 5)
    assert split.weakest == ((2, 3),)
    assert value == pytest.approx(groups.totals[2, 3])
    assert set(split.part) == set(near)


@pytest.mark.parametrize("seed", range(6))
def test_parting_at_the_weakest_joins_costs_what_networkx_says(seed):
    random = np.random.default_rng(seed)
    groups = Groups(ITEMS, {"x": 0.01, "y": 0.2})
    graph = nx.Graph()
    for _ in range(40):
        a, b = random.choice(ITEMS, 2, replace=False).tolist()
        groups.add(Decision(a, b, "same", reviewer=str(random.choice(["x", "y"]))))
    for pair, total in groups.totals.items():
        graph.add_edge(*pair, capacity=round(1000 * total))
    ends = next((0, b) for b in range(1, ITEMS) if groups.label[b] == groups.label[0])
    split = groups.split(*ends)
    assert sum(round(1000 * groups.totals[pair]) for pair in split.weakest) == nx.minimum_cut_value(graph, *ends)
    graph.remove_edges_from(split.weakest)
    assert set(split.part) == nx.node_connected_component(graph, 0)
    assert ends[1] not in split.part


def test_a_persons_different_undoes_a_machines_join():
    groups = Groups(2)
    groups.add(Decision(0, 1, "same", "machine"))
    assert groups.label.tolist() == [0, 0]
    groups.add(Decision(0, 1, "different"))
    assert groups.label.tolist() == [0, 1]


@pytest.mark.parametrize(
    "decision, words",
    [
        (Decision(0, 9, "same"), "item 9: expected one of the 3 items"),
        (Decision(-1, 0, "same"), "item -1"),
        (Decision(1, 1, "same"), "item 1 and itself"),
        (Decision(0, 1, "same", supersedes=2), "supersedes 2: expected an earlier decision"),
        (Decision(0, 1, "same", supersedes=0), "supersedes 0"),
    ],
)
def test_wrong_decisions_are_refused_and_change_nothing(decision, words):
    groups = Groups(3)
    groups.add(Decision(0, 2, "same"))
    groups.add(Decision(0, 2, "unsure", supersedes=0))
    with pytest.raises(ValueError, match=words):
        groups.add(decision)
    assert len(groups.decisions) == 2
    assert groups.label.tolist() == [0, 1, 2]


def test_items_of_different_groups_cannot_be_split():
    with pytest.raises(ValueError, match="0 and 1 are in different groups"):
        Groups(2).split(0, 1)
