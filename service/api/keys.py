"""Routes that make, list and revoke keys."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service.api.access import cause_of
from service.api.problems import documented
from service.storage.keys import Keys
from service.wire.admin_schemas import CreatedKey, Key, KeyForm, KeyList


def keys_router(keys: Keys) -> APIRouter:
    """`/v1/admin/keys`."""
    router = APIRouter(prefix="/v1/admin/keys", tags=["admin"])

    @router.post("", status_code=201, responses=documented(400, 413, 422, 503))
    def create(form: KeyForm, request: Request, response: Response) -> CreatedKey:
        """Make a key."""
        key, secret = keys.add(form.new_key(), cause_of(request))
        response.headers["Cache-Control"] = "no-store"
        return CreatedKey(**Key.of(key).model_dump(), secret=secret)

    @router.get("", responses=documented(503))
    def list_all() -> KeyList:
        """List all keys, with those that were revoked."""
        return KeyList(keys=[Key.of(key) for key in keys.list()])

    @router.delete("/{key_id}", status_code=204, responses=documented(404, 422, 503))
    def revoke(key_id: Annotated[str, Path(max_length=200)], request: Request) -> None:
        """Make a key worthless for good."""
        keys.revoke(key_id, cause_of(request))

    return router
