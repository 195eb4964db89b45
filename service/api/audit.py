"""The logs of a gallery over HTTP: who changed what, and who asked for what."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.problems import documented
from service.storage.queries import Queries
from service.storage.store import Store
from service.wire.admin_schemas import LoggedQuery, LogQuery, Operation, OperationPage, OperationQuery, QueryPage


def audit(store: Store, queries: Queries) -> APIRouter:
    """The routes that read the operation log and the query log."""
    router = APIRouter(prefix="/v1/admin", tags=["admin"])

    @router.get("/operations", responses=documented(422, 503))
    def operations(wanted: Annotated[OperationQuery, Query()]) -> OperationPage:
        """List the changes of the gallery, the newest first."""
        found = store.operations(wanted.part())
        page = [Operation.of(change) for change in found[: wanted.limit]]
        return OperationPage(operations=page, next_cursor=page[-1].seq if len(found) > wanted.limit else None)

    @router.get("/queries", responses=documented(422, 503))
    def queried(wanted: Annotated[LogQuery, Query()]) -> QueryPage:
        """List the queries that were answered, the newest first."""
        found = queries.page(wanted.part())
        page = [LoggedQuery.of(logged) for logged in found[: wanted.limit]]
        return QueryPage(queries=page, next_cursor=page[-1].seq if len(found) > wanted.limit else None)

    return router
