"""Routes of what a service was not given, so that who asks for them is told why they are not there."""

from typing import NoReturn

from fastapi import APIRouter

from service.records import NotServed

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
GALLERY_PATHS = (
    "/",
    "/docs",
    "/query",
    "/v1/query",
    "/v1/items",
    "/v1/items/{rest:path}",
    "/v1/cameras",
    "/v1/days",
    "/v1/labels",
    "/v1/neighbours",
    "/v1/imports",
    "/v1/imports/{rest:path}",
    "/v1/shortlists",
    "/v1/shortlists/{rest:path}",
    "/v1/subjects",
    "/v1/subjects/{rest:path}",
    "/v1/review/{rest:path}",
    "/v1/decisions",
    "/v1/decisions/{rest:path}",
    "/v1/catalogue",
    "/v1/identities",
    "/v1/identities/{rest:path}",
    "/v1/jobs",
    "/v1/jobs/{rest:path}",
    "/v1/admin/{rest:path}",
)
CLASSIFIER_PATHS = ("/v1/classify", "/v1/classes")


def without_gallery() -> APIRouter:
    """What a service answers instead of the routes of a gallery."""
    return _absent(GALLERY_PATHS, "this service has no gallery; reid-serve needs --checkpoint and --gallery for one")


def without_classifier() -> APIRouter:
    """What a service answers instead of the routes of a classifier."""
    return _absent(CLASSIFIER_PATHS, "this service has no classifier; reid-serve needs --classifier for one")


def _absent(paths: tuple[str, ...], reason: str) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    def refuse() -> NoReturn:
        raise NotServed(reason)

    for path in paths:
        router.add_api_route(path, refuse, methods=METHODS, response_model=None)
    return router
