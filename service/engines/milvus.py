"""The search engine on a Milvus server: for more rows than one memory holds, or several services over one gallery.

E embedding size, B queries of one request. Milvus finds candidates among the rows that pass the filter, by inner
products; their vectors come with them and are scored again by `MemoryEngine`, whose answers these are.

Names are kept percent-encoded after a "=", and none as an empty string. What an expression quotes is then plain ASCII
without a quote or backslash, so that no name can break it, whatever a server thinks of escapes. Attributes are kept as
NAME=TEXT, both encoded.
"""

import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import Lock
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import quote, unquote, urlsplit

import numpy as np

from service.engines.inputs import UNKNOWN_TIME, checked_queries, checked_rows
from service.engines.memory import MemoryEngine
from service.fields import FIELDS, MOST_ATTRIBUTES, Among, During, Fact, Field, Filter
from service.records import Consistency, Found, Hit, IndexLost, IndexUnavailable, MilvusIndex, Row, Vectors

T = TypeVar("T")

CONNECT_SECONDS = 5.0
READ_SECONDS = 5.0
WRITE_SECONDS = 30.0
CREATE_SECONDS = 60.0
MESSAGE_BYTES = 2**23  # of the rows in one request or answer
ANSWER_BYTES = 2**25  # of the rows for one query, where many are needed; servers send 64 MiB
MOST_ROWS = 16_384  # that Milvus gives for a query
MOST_QUERIES = 1024  # in one request; Milvus takes 16,384
SPARE = 32  # candidates asked for beyond those wanted
RECALLED = 11  # rows that are looked for to tell the recall: a row itself and 10 others
PARTS = 20  # of the rows: a filter that so few pass has Milvus compare them one by one
MOST_FETCHED = 100_000  # rows that pass, which are fetched where an index did not lead to enough of them
AUTO_ROWS = 200_000  # from which on `auto` is hnsw
LINKS, BUILDING, EF, MOST_EF = 24, 200, 128, 32_768  # of hnsw: M, efConstruction, and ef by default and at most
LEAST_LISTS, MOST_LISTS, LEAST_PROBES, PROBED = 128, 65_536, 16, 8  # of ivf, of whose lists a query looks into 1 of 8
GROWTH = 8  # ask for so many times the candidates where a crowd of nearly equal rows may hide better ones
LOWEST = UNKNOWN_TIME + 1  # the smallest number that an expression can hold, and the first time there can be
NO_PAIR = '""'  # no attribute is kept so
NAME_BYTES = 65_535
COLUMNS = ["number", "vector", *(field.name for field in FIELDS)]
NOT_FOUND, NOT_LOADED = 100, (101, 103)  # codes of Milvus


class _Candidate(NamedTuple):
    entity: dict[str, Any]
    product: float


class MilvusEngine:
    """A `SearchEngine` whose rows are a collection of a Milvus server, which may hold those of other models.

    It is exact with the index `flat`; with `hnsw` and `ivf` it may miss some of the best, and scores are the same.
    `auto` makes the collection flat below 200,000 rows `expected`, and hnsw above. `effort` is how far such an index
    looks: the candidates of a query (`ef` of hnsw), or the lists of rows (`nprobe` of ivf).

    It connects when it is first asked, and again after a failure. Every method raises IndexUnavailable, within some
    ten seconds, when the server cannot be reached, does not answer or is not ready; and IndexLost, except where it says
    otherwise, when the collection is not there. `create` alone makes it: who fills it must know that it was empty.

    While another process replaces rows, server 2.3.5 counts some of them twice, and may refuse a search that meets one.

    `consistency` is that of reads: with less than Strong, rows just changed by another process (for Session), or by
    this one too, may be found as they were. Raises ValueError if pymilvus is not installed, for a URI that is not
    http(s)://host[:port][/database], and a collection's name of other signs than letters, digits and underscores.
    """

    def __init__(
        self,
        uri: str,
        collection: str,
        dimension: int,
        *,
        token: str | None = None,
        consistency: Consistency = "Strong",
        index: MilvusIndex = "flat",
        effort: int | None = None,
        expected: int = 0,
    ) -> None:
        self._index, self._effort, self._expected = index, effort, expected
        self._made: tuple[str, int] | None = None  # the collection's index, and its number of lists
        self._server = _without_secrets(uri)
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", collection):
            raise ValueError(f"the collection's name is {collection!r}; expected letters, digits and underscores")
        self._library, self._grpc = _pymilvus(), import_module("grpc")
        self._uri, self._collection, self._dimension = uri, collection, dimension
        self._token, self._consistency = token or "", consistency
        self._client: Any = None
        self._failed = False
        self._connecting = Lock()

    def create(self) -> None:
        """Make the collection where it is not there, empty, and have it searched; call again if it raises.

        Raises ValueError if it is there with vectors of another size.
        """

        def create(client: Any) -> None:
            if not client.has_collection(self._collection, timeout=READ_SECONDS):
                client.create_collection(
                    self._collection,
                    schema=self._schema(),
                    consistency_level=self._consistency,
                    timeout=CREATE_SECONDS,
                )
            described = client.describe_collection(self._collection, timeout=READ_SECONDS)
            sizes = [field["params"]["dim"] for field in described["fields"] if field["name"] == "vector"]
            if sizes != [self._dimension]:
                raise ValueError(f"{self._collection} has vectors of size {sizes}; expected [{self._dimension}]")
            if not client.list_indexes(self._collection, timeout=READ_SECONDS):
                index = client.prepare_index_params("vector", metric_type="IP", **self._parameters())
                client.create_index(self._collection, index, timeout=CREATE_SECONDS)
            client.load_collection(self._collection, timeout=CREATE_SECONDS)

        self._ask(create)

    def _parameters(self) -> dict[str, Any]:
        """What index the collection is to have."""
        kind = self._index
        if kind == "auto":
            kind = "hnsw" if self._expected >= AUTO_ROWS else "flat"
        if kind == "hnsw":
            return {"index_type": "HNSW", "params": {"M": LINKS, "efConstruction": BUILDING}}
        if kind == "ivf":
            lists = min(max(LEAST_LISTS, 4 * math.isqrt(self._expected)), MOST_LISTS)
            return {"index_type": "IVF_FLAT", "params": {"nlist": lists}}
        return {"index_type": "FLAT"}

    def _kind(self) -> tuple[str, int]:
        """The index that the collection has, whoever made it, and its number of lists."""
        if self._index == "flat":
            return "FLAT", 0
        if self._made is None:
            (name,) = self._call("list_indexes", timeout=READ_SECONDS)
            told = self._call("describe_index", index_name=name, timeout=READ_SECONDS)
            self._made = told["index_type"], int(told.get("nlist", 0))
        return self._made

    def _looking(self, wanted: int) -> dict[str, int]:
        """How far a search for so many candidates looks."""
        kind, lists = self._kind()
        if kind == "HNSW":
            return {"ef": min(max(self._effort or EF, wanted), MOST_EF)}
        if kind == "IVF_FLAT":
            return {"nprobe": min(self._effort or max(LEAST_PROBES, lists // PROBED), lists)}
        return {}

    def recall(self, vectors: Vectors) -> float | None:
        """The share of the 10 best rows beside themselves that rows (n, E) of the collection find; None where all are.

        What they should find is asked for part by part of the rows, which a server compares one by one.
        """
        if self._kind()[0] == "FLAT":
            return None
        queries = checked_queries(vectors, RECALLED, self._dimension)
        found = self._best(queries, RECALLED, "", RECALLED + SPARE)
        best: list[tuple[Hit, ...]] = [()] * len(queries)
        for part in range(PARTS):
            some = self._best(queries, RECALLED, f"number % {PARTS} == {part}", RECALLED + SPARE)
            for i, hits in enumerate(some):
                best[i] = tuple(sorted(best[i] + hits, key=lambda hit: (-hit.score, hit.number))[:RECALLED])
        # The first is the row itself. Rows as good as the worst of the best are as good an answer.
        met = [
            sum(hit.score >= exact[-1].score for hit in hits[1:]) / (len(exact) - 1)
            for hits, exact in zip(found, best, strict=True)
            if len(exact) > 1
        ]
        return sum(met) / len(met) if met else None

    @property
    def how(self) -> str:
        """By the collection's index, as it was made or is asked for."""
        kind = self._made[0].lower() if self._made else self._index
        sure = "exactly" if kind == "flat" else "approximately"
        effort = "" if kind == "flat" or self._effort is None else f", effort {self._effort}"
        return f"{sure}, by the index {kind}{effort} of Milvus at {self._server}"

    def exists(self) -> bool:
        """Whether the collection is there; raises no IndexLost."""
        return bool(self._call("has_collection", timeout=READ_SECONDS))

    def drop(self) -> None:
        """Drop the collection with its aliases, if it is there; raises no IndexLost."""
        self._ask(lambda client: _drop(client, self._collection))

    def drop_others(self, prefix: str) -> list[str]:
        """Drop, and name, all collections whose names begin with `prefix`, but this one: those of former models."""

        def drop(client: Any) -> list[str]:
            names = sorted(client.list_collections(timeout=READ_SECONDS))
            others = [name for name in names if name.startswith(prefix) and name != self._collection]
            for name in others:
                _drop(client, name)
            return others

        return self._ask(drop)

    def point(self, alias: str) -> None:
        """Have `alias` name this collection from now on; whoever asks for it meanwhile gets the former or this one."""

        def point(client: Any) -> None:
            try:
                client.alter_alias(self._collection, alias, timeout=READ_SECONDS)
            except self._library.MilvusException:
                client.create_alias(self._collection, alias, timeout=READ_SECONDS)

        self._ask(point)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._client:
            self._client.close()
            self._client = None

    def upsert(self, rows: Sequence[Row]) -> None:
        """Add rows, or replace those of the same numbers; of two with one number the last counts.

        Raises ValueError naming the first row whose vector or name is refused; then no row is added. After
        IndexUnavailable some may have been; the same call again makes good.
        """
        latest, vectors = checked_rows(rows, self._dimension)
        entities = [
            {
                "number": row.number,
                "vector": vector,
                **{field.name: _stored(row, field) for field in FIELDS},
            }
            for row, vector in zip(latest, vectors, strict=True)
        ]
        for portion in _portions(entities):
            self._call("upsert", data=portion, timeout=WRITE_SECONDS)

    def remove(self, numbers: Collection[int]) -> None:
        """Forget rows; numbers that are not there are none."""
        ordered = sorted(numbers)
        for start in range(0, len(ordered), MOST_ROWS):
            some = [int(number) for number in ordered[start : start + MOST_ROWS]]
            self._call("delete", ids=some, timeout=WRITE_SECONDS)

    def search(self, vectors: Vectors, count: int, chosen: Filter) -> list[Found]:
        """Find the `count` best items for each of the unit vectors (n, E) among those that pass the filter.

        Raises ValueError for a count below 1 and vectors that are not (n, E), or not finite or unit.
        """
        queries, expression = checked_queries(vectors, count, self._dimension), _expression(chosen)
        with ThreadPoolExecutor(1) as pool:  # a strong read waits for the server's clock: better twice at once
            passing = pool.submit(self._count, expression)
            hits = self._best(queries, count, expression, count + SPARE)
        candidates = passing.result()
        if self._kind()[0] != "FLAT" and candidates <= MOST_FETCHED:
            # A graph of which few rows pass may lead to fewer than there are.
            short = [i for i, those in enumerate(hits) if len(those) < min(count, candidates)]
            if short:  # for none, all rows would be fetched, too
                for i, those in zip(short, self._best_of_all(queries[short], count, expression), strict=True):
                    hits[i] = those
        # The two were not read at one moment; where fewer than `count` were found, they are all there are.
        return [Found(those, max(candidates, count) if len(those) == count else len(those)) for those in hits]

    def rows(self, after: int | None = None) -> Iterator[list[Row]]:
        """All rows as they are kept, by rising number, some at a time; those greater than `after` alone, if given."""
        for page in self._pages("", COLUMNS, MESSAGE_BYTES // (4 * self._dimension), after):
            yield [_row(entity) for entity in page]

    def numbers(self) -> set[int]:
        """The numbers of all rows."""
        return {entity["number"] for page in self._pages("", ["number"], MOST_ROWS) for entity in page}

    def __len__(self) -> int:
        """The number of rows."""
        return self._count("")

    def _best(self, queries: Vectors, count: int, expression: str, wanted: int) -> list[tuple[Hit, ...]]:
        """The `count` best hits of each query (n, E), from so many candidates or, where these may not do, from more."""
        most = min(MOST_ROWS, ANSWER_BYTES // (4 * self._dimension))
        if wanted > most:
            return self._best_of_all(queries, count, expression)
        best: list[tuple[Hit, ...]] = []
        step = min(MOST_QUERIES, max(1, MESSAGE_BYTES // (4 * self._dimension * wanted)))
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            answers = self._candidates(block, expression, wanted)
            scored = _scored(block, count, (some.entity for answer in answers for some in answer))
            # More rows as good as the last may have been left out: a crowd of photos that are nearly equal.
            # As with `least_product`, of products that are sums in float32.
            slack = 2 * self._dimension * 2.0**-23
            crowded = [
                i
                for i, answer in enumerate(answers)
                if len(answer) == wanted and answer[-1].product >= answer[count - 1].product - slack
            ]
            if crowded:
                if wanted < most:
                    more = self._best(block[crowded], count, expression, min(GROWTH * wanted, most))
                else:
                    more = self._best_of_all(block[crowded], count, expression)
                for i, hits in zip(crowded, more, strict=True):
                    scored[i] = hits
            best += scored
        return best

    def _candidates(self, queries: Vectors, expression: str, wanted: int) -> list[list[_Candidate]]:
        """For each query (B, E) the rows with the `wanted` greatest products, by falling product."""
        answers = self._call(
            "search",
            data=list(queries),
            filter=expression,
            limit=wanted,
            output_fields=["number", "vector"],
            search_params={"metric_type": "IP", "params": self._looking(wanted)},
            consistency_level=self._consistency,
            timeout=READ_SECONDS,
        )
        return [[_Candidate(hit["entity"], min(hit["distance"], 1)) for hit in answer] for answer in answers]

    def _best_of_all(self, queries: Vectors, count: int, expression: str) -> list[tuple[Hit, ...]]:
        """The `count` best hits of each query (n, E) from all rows that pass, fetched page by page."""
        best: list[tuple[Hit, ...]] = [()] * len(queries)
        for page in self._pages(expression, ["number", "vector"], MESSAGE_BYTES // (4 * self._dimension)):
            for i, hits in enumerate(_scored(queries, count, page)):
                best[i] = tuple(sorted(best[i] + hits, key=lambda hit: (-hit.score, hit.number))[:count])
        return best

    def _pages(
        self, expression: str, fields: list[str], size: int, after: int | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """The rows that pass, and are greater than `after`, by rising number, about `size` at a time."""
        while page := self._page(expression, fields, min(size, MOST_ROWS), after):
            yield page
            after = page[-1]["number"]

    def _page(self, expression: str, fields: list[str], limit: int, after: int | None) -> list[dict[str, Any]]:
        conditions = [f"({expression})"] * bool(expression) + [f"number > {after}"] * (after is not None)
        page = self._query(
            filter=" and ".join(conditions),
            output_fields=fields,
            limit=limit,
            # What pymilvus's own iterator sends: without, a page holds any rows, in any order.
            iterator="True",
            reduce_stop_for_best="True",
        )
        return sorted(page, key=lambda entity: entity["number"])

    def _count(self, expression: str) -> int:
        return int(self._query(filter=expression, output_fields=["count(*)"])[0]["count(*)"])

    def _query(self, **options: Any) -> list[dict[str, Any]]:
        return list(self._call("query", consistency_level=self._consistency, timeout=READ_SECONDS, **options))

    def _schema(self) -> Any:
        types = self._library.DataType
        schema = self._library.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("number", types.INT64, is_primary=True)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=self._dimension)
        texts = {"element_type": types.VARCHAR, "max_length": NAME_BYTES, "max_capacity": MOST_ATTRIBUTES}
        for field in FIELDS:
            match field.kind:
                case "name":
                    schema.add_field(field.name, types.VARCHAR, max_length=NAME_BYTES)
                case "time":
                    schema.add_field(field.name, types.INT64)
                case "attributes":
                    schema.add_field(field.name, types.ARRAY, **texts)
        return schema

    def _call(self, method: str, **options: Any) -> Any:
        return self._ask(lambda client: getattr(client, method)(self._collection, **options))

    def _ask(self, work: Callable[[Any], T]) -> T:
        """Have a connected client do some work; where the collection is not loaded, have the server load it."""
        try:
            client = self._connected()
            try:
                return work(client)
            except self._library.MilvusException as error:
                if error.code not in NOT_LOADED:  # it is, after a restart of the server
                    raise
                client.load_collection(self._collection, timeout=READ_SECONDS, _async=True)
                return work(client)
        except (self._library.MilvusException, self._grpc.RpcError) as error:
            if error.code == NOT_FOUND:
                self._made = None
                raise IndexLost(f"the Milvus server at {self._server} has no {self._collection}") from error
            self._failed = True
            reason = f"it loads {self._collection}" if error.code in NOT_LOADED else _reason(error)
            raise IndexUnavailable(f"the Milvus server at {self._server} is not ready: {reason}") from error

    def _connected(self) -> Any:
        with self._connecting:
            if self._client and self._failed:  # a new connection does not wait as an old one does before it tries again
                self._client.close()
                self._client = None
            if not self._client:
                self._client = self._library.MilvusClient(
                    self._uri, token=self._token, timeout=CONNECT_SECONDS, dedicated=True
                )
                self._failed = False
            return self._client


def _expression(chosen: Filter) -> str:
    """The filter in Milvus's language; empty if it has no condition."""
    return " and ".join(map(_condition, chosen.conditions()))


def _condition(one: Among | During) -> str:
    name = one.field.name
    if isinstance(one, During):
        since = LOWEST if one.since is None else one.since
        return f"{name} >= {since}" + ("" if one.until is None else f" and {name} < {one.until}")
    if one.field.kind == "name":
        texts = ", ".join(f'"{_encoded(text)}"' for text in sorted(one.texts))
        return f"{name} {'not in' if one.excluded else 'in'} [{texts}]"
    pairs = ", ".join(f'"{_pair(one.attribute, text)}"' for text in sorted(one.texts))
    # A list without anything in it is no list to Milvus; asked for, it is what no item has.
    return f"{'not ' * one.excluded}array_contains_any({name}, [{pairs or NO_PAIR}])"


def _pair(attribute: str, text: str) -> str:
    return quote(attribute, safe="", errors="surrogatepass") + _encoded(text)


def _encoded(name: str | None) -> str:
    return "" if name is None else "=" + quote(name, safe="", errors="surrogatepass")


def _decoded(text: str) -> str | None:
    return unquote(text[1:], errors="surrogatepass") if text else None


def _stored(row: Row, field: Field) -> int | str | list[str]:
    fact = row.facts.get(field.name)
    if field.kind == "time":
        return UNKNOWN_TIME if fact is None else cast(int, fact)
    if isinstance(fact, Mapping):
        return [_pair(attribute, text) for attribute, text in fact.items()]
    if field.kind == "attributes":
        return []
    text = _encoded(cast(str | None, fact))
    if len(text) > NAME_BYTES:
        raise ValueError(
            f"item {row.number}: the {field.name} has {len(text)} bytes, encoded; expected at most {NAME_BYTES}"
        )
    return text


def _row(entity: dict[str, Any]) -> Row:
    known = {field.name: _fact(field, entity[field.name]) for field in FIELDS}
    facts = {name: fact for name, fact in known.items() if fact is not None}
    return Row(entity["number"], np.array(entity["vector"], np.float32), facts)


def _fact(field: Field, stored: Any) -> Fact | None:
    """What `_stored` made of a fact."""
    if field.kind == "time":
        return None if stored == UNKNOWN_TIME else int(stored)
    if field.kind == "name":
        return _decoded(stored)
    pairs = [pair.partition("=") for pair in stored]
    return {
        unquote(name, errors="surrogatepass"): unquote(text, errors="surrogatepass") for name, _, text in pairs
    } or None


def _scored(queries: Vectors, count: int, entities: Iterable[Any]) -> list[tuple[Hit, ...]]:
    """The `count` best of some rows for each query, as `MemoryEngine` scores and sorts them."""
    vectors = {entity["number"]: entity["vector"] for entity in entities}
    engine = MemoryEngine()
    engine.upsert([Row(number, np.array(vector, np.float32)) for number, vector in vectors.items()])
    return [found.hits for found in engine.search(queries, count, Filter())]


def _portions(entities: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut rows into portions of about MESSAGE_BYTES."""
    portion: list[dict[str, Any]] = []
    size = 0
    for entity in entities:
        portion.append(entity)
        size += entity["vector"].nbytes + sum(_bytes(entity[field.name]) for field in FIELDS)
        if size >= MESSAGE_BYTES or len(portion) == MOST_ROWS:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _bytes(stored: int | str | list[str]) -> int:
    return 8 if isinstance(stored, int) else len(stored) if isinstance(stored, str) else sum(map(len, stored))


def _drop(client: Any, collection: str) -> None:
    if client.has_collection(collection, timeout=READ_SECONDS):
        for alias in client.list_aliases(collection, timeout=READ_SECONDS)["aliases"]:
            client.drop_alias(alias, timeout=READ_SECONDS)  # newer servers drop no collection that has one
        client.drop_collection(collection, timeout=CREATE_SECONDS)


def _reason(error: Any) -> str:
    """The first line of what went wrong, from gRPC where pymilvus hides it."""
    told = next((one for one in (error, error.__cause__) if hasattr(one, "details")), None)
    text = told.details() if told else error.message
    return str(text).strip().partition("\n")[0][:300]


def _without_secrets(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the Milvus URI is not of the form http(s)://host[:port][/database]")
    return parts._replace(netloc=parts.hostname + (f":{port}" if port else ""), query="", fragment="").geturl()


def _pymilvus() -> Any:
    try:
        library = import_module("pymilvus")
    except ImportError as error:
        raise ValueError("the milvus engine needs pymilvus, which is not installed: pip install pymilvus") from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs a traceback of what it raises
    return library
