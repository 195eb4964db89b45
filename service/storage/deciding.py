"""What people do to identities within a transaction, each turned into decisions: label, join, part, take back."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, select, update

from reid.naming.decisions import Answer, Basis
from service.storage.columns import portions
from service.storage.decisions import (
    LEVEL,
    Held,
    NewDecision,
    append,
    held_about,
    pair_of,
    reviewer_errors,
    totals,
)
from service.storage.membership import Graph, Log, Settled, connected, settle
from service.storage.tables import decisions, identities, items


class Deciding:
    """The decisions of one transaction, whose entries of the log share what is `shared`."""

    def __init__(self, connection: Connection, shared: Mapping[str, Any], log: Log) -> None:
        self._connection, self._shared, self._log = connection, shared, log

    @cached_property
    def errors(self) -> dict[str, float]:
        """The share of wrong answers of each reviewer for whom it is known."""
        return reviewer_errors(self._connection)

    def decide(
        self,
        new: Sequence[NewDecision],
        source: str = "human",
        prefer: int | None = None,
        touched: Collection[str] = (),
        logged: Collection[int] = (),
    ) -> tuple[list[str], Settled]:
        """Append decisions and have identities follow; returns the ids of the decisions, and what became of items.

        `touched` are more items whose identity may be another; the others are as for `settle`.
        """
        ids = append(self._connection, self._shared, new)
        ends = {*touched, *(item_id for one in new for item_id in (one.a, one.b)), *self._superseded(new)}
        if any(one.expected is not None for one in new):  # which tells how reliable reviewers are in all they said
            ends |= self._said_by({self._shared["actor"] if one.actor is None else one.actor for one in new})
            self.__dict__.pop("errors", None)
        return ids, settle(self._connection, self._log, ends, self.errors, source, prefer, logged)

    def label(self, item_id: str, number: int, former: int | None, identity: int | None) -> None:
        """Have an item show an identity, or none; it leaves a `former` one that has a name. Both are numbers."""
        said = totals(held_about(self._connection, [item_id]), self.errors)
        joins = [pair for pair, total in said.items() if total > LEVEL]
        new: list[NewDecision] = []
        alone = not joins
        if former is not None and self._name(former) is not None:
            anchor = self._anchor(former)
            # What only the anchor of a name was joined to takes nobody along: thousands may show the identity.
            alone = alone or (len(joins) == 1 and anchor != item_id and anchor in joins[0])
            new = self._leaving([item_id], former, "withdrawn")
        if identity is not None:
            new += self.joining(item_id, identity, "visual")
        if alone:
            append(self._connection, self._shared, new)
            values = {"identity_number": identity, "identity_source": None if identity is None else "human"}
            self._connection.execute(update(items).where(items.c.number == number).values(values))
        else:
            self.decide(new, touched=[item_id], logged=[number])

    def joining(self, item_id: str, identity: int, basis: Basis) -> list[NewDecision]:
        """The decisions by which an item shows an identity; the first one becomes its anchor, without any."""
        anchor = self._anchor(identity)
        if anchor is None or anchor == item_id:
            self._set_anchor(identity, item_id)
            return []
        return self.same(item_id, anchor, basis)

    def same(self, a: str, b: str, basis: Basis) -> list[NewDecision]:
        """The decisions after which two items are joined, whatever was said of them before."""
        against = [one for one in self._between(a, b) if one.answer == "different"]
        return [NewDecision(a, b, "same", basis, one.number) for one in against] or [NewDecision(a, b, "same", basis)]

    def part(self, item_ids: Collection[str], identity: int, answer: Answer = "different") -> list[NewDecision]:
        """The decisions by which items leave an identity, whose other items stay together, and so do they.

        An anchor among them is followed by another item.
        """
        return self._leaving(item_ids, identity, answer)

    def undo(self, batch: Sequence[Held], supersedes: Mapping[int, int | None]) -> list[NewDecision]:
        """The decisions that take back those of a batch; what each had superseded holds again."""
        earlier = {number for one in batch if (number := supersedes[one.number]) is not None}
        restored = {one.number: one for one in self._by_number(earlier)}
        new = []
        for one in batch:
            before = restored.get(supersedes[one.number] or 0)
            if before is None:
                new.append(NewDecision(one.a, one.b, "withdrawn", one.basis, one.number))
            else:
                new.append(NewDecision(one.a, one.b, before.answer, before.basis, one.number, actor=before.actor))
        return new

    def _leaving(self, item_ids: Collection[str], identity: int, answer: Answer) -> list[NewDecision]:
        gone, anchor = set(item_ids), self._anchor(identity)
        if len(gone) == 1 and anchor not in gone:
            held = held_about(self._connection, gone)
            joined = {pair for pair, total in totals(held, self.errors).items() if total > LEVEL}
            if len(joined) < 2:  # it kept nobody together
                there = [one for one in held if one.answer == "same" and one.pair in joined]
                return [NewDecision(one.a, one.b, answer, "visual", one.number) for one in there]
        graph = connected(self._connection, gone, self.errors)
        between = [one for one in graph.held if one.answer == "same" and len({one.a, one.b} & gone) == 1]
        joined = {one.pair for one in between if graph.totals[one.pair] > LEVEL}
        new = [NewDecision(one.a, one.b, answer, "visual", one.number) for one in between if one.pair in joined]
        if anchor in gone:
            anchor = self._followed_by(identity, gone)
            self._set_anchor(identity, anchor)
        new += self._bridged(graph, gone, anchor)
        leaving = graph.groups(without=graph.nodes - gone)
        new += [NewDecision(min(one), min(leaving[0]), "same", "import") for one in leaving[1:]]
        return new

    def _bridged(self, graph: Graph, gone: Collection[str], anchor: str | None) -> list[NewDecision]:
        """Direct joins for those whom only the items that go kept together."""
        was = next((group for group in graph.groups() if set(gone) & group), set())
        pieces = [group for group in graph.groups(without=gone) if group <= was]
        if len(pieces) < 2:
            return []
        first = next((group for group in pieces if anchor in group), pieces[0])
        end = anchor if anchor in first else min(first)
        assert end is not None
        return [NewDecision(min(piece), end, "same", "import") for piece in pieces if piece is not first]

    def _followed_by(self, identity: int, gone: Collection[str]) -> str | None:
        """The oldest item of an identity but for some."""
        told = select(items.c.item_id).where(items.c.identity_number == identity).order_by(items.c.number)
        return next((one for one in self._connection.execute(told).scalars() if one not in gone), None)

    def _between(self, a: str, b: str) -> list[Held]:
        return [one for one in held_about(self._connection, [a]) if one.pair == pair_of(a, b)]

    def _superseded(self, new: Iterable[NewDecision]) -> set[str]:
        numbers = {one.supersedes for one in new if one.supersedes is not None}
        return {item_id for one in self._by_number(numbers) for item_id in (one.a, one.b)}

    def _by_number(self, numbers: Collection[int]) -> list[Held]:
        found: list[Held] = []
        brief = select(*(decisions.c[name] for name in Held._fields))
        for portion in portions(numbers):
            found += [Held(*row) for row in self._connection.execute(brief.where(decisions.c.number.in_(portion)))]
        return found

    def _said_by(self, actors: Collection[str]) -> set[str]:
        told = select(decisions.c.a, decisions.c.b).where(decisions.c.actor.in_(actors))
        return {item_id for pair in self._connection.execute(told) for item_id in pair}

    def _name(self, identity: int) -> str | None:
        named = select(identities.c.name).where(identities.c.number == identity)
        name: str | None = self._connection.execute(named).scalar_one()
        return name

    def _anchor(self, identity: int) -> str | None:
        anchored = select(identities.c.anchor).where(identities.c.number == identity)
        anchor: str | None = self._connection.execute(anchored).scalar_one()
        return anchor

    def _set_anchor(self, identity: int, anchor: str | None) -> None:
        self._connection.execute(update(identities).where(identities.c.number == identity).values(anchor=anchor))
