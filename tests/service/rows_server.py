"""A stand-in for a search engine's server, for what a real one does too seldom or too slowly."""

import math

from service.engines.memory import MemoryEngine
from service.records import IndexLost, IndexUnavailable, Row


class Server:
    """A server that keeps rows by collection, and can be away."""

    def __init__(self):
        self.collections: dict[str, dict[int, Row]] = {}
        self.aliases: dict[str, str] = {}
        self.away = False
        self.answers = math.inf  # so many more come, then one is lost after the work is done

    def reach(self):
        if self.away:
            raise IndexUnavailable("the server at nowhere: connection refused")


class Engine:
    """An engine whose rows a `Server` keeps."""

    def __init__(self, server, name):
        self.server, self.name = server, name

    def _ask(self, work):
        self.server.reach()
        if self.name not in self.server.collections:
            raise IndexLost(f"no collection {self.name}")
        answer = work(self.server.collections[self.name])
        self.server.answers -= 1
        if self.server.answers == 0:
            raise IndexUnavailable("the server at nowhere: timed out")
        return answer

    def create(self):
        self.server.reach()
        self.server.collections.setdefault(self.name, {})

    def drop(self):
        self.server.reach()
        self.server.collections.pop(self.name, None)

    def drop_others(self, prefix):
        self.server.reach()
        others = [name for name in self.server.collections if name.startswith(prefix) and name != self.name]
        for name in others:
            del self.server.collections[name]
        return others

    def point(self, name):
        self.server.reach()
        self.server.aliases[name] = self.name

    def upsert(self, rows):
        self._ask(lambda kept: kept.update({row.number: row for row in rows}))

    def remove(self, numbers):
        self._ask(lambda kept: [kept.pop(number, None) for number in numbers])

    def search(self, vectors, count, chosen):
        def search(kept):
            engine = MemoryEngine()
            engine.upsert(list(kept.values()))
            return engine.search(vectors, count, chosen)

        return self._ask(search)

    def numbers(self):
        return self._ask(set)

    def __len__(self):
        return self._ask(len)

    def recall(self, vectors):
        return self._ask(lambda kept: None)

    def rows(self, after=None):
        while page := self._ask(lambda kept, after=after: page_of(kept, after)):
            yield page
            after = page[-1].number


def page_of(kept, after):
    return [kept[number] for number in sorted(kept) if after is None or number > after][:7]
