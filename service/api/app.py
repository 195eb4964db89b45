"""The HTTP interface of a gallery, of a classifier, or of both, put together from its routes."""

from fastapi import FastAPI
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware

from reid.retrieval.calibration import Calibration
from service.api import access, description, problems
from service.api.absent import without_classifier, without_gallery
from service.api.access import FindKey
from service.api.attention import attention
from service.api.audit import audit
from service.api.boxes import boxes
from service.api.catalogue import catalogue
from service.api.classes import classes
from service.api.erasure import erasure
from service.api.health import health
from service.api.identities import identities_router
from service.api.imports import imports
from service.api.items import items
from service.api.jobs import jobs
from service.api.json_depth import ShallowJson
from service.api.keys import keys_router
from service.api.metrics import Observed, metrics
from service.api.neighbours import neighbours
from service.api.page import page
from service.api.pictures import pictures
from service.api.problems import REQUEST_ID
from service.api.queries import queries
from service.api.review import review
from service.api.session import session
from service.api.shortlists import shortlists
from service.api.state import UNCALIBRATED, state
from service.api.subjects import subjects
from service.api.uploads import MAX_JSON, Drained, Heads, Utf8Forms
from service.classification import Classification
from service.gallery.gallery import Gallery
from service.metrics import Metrics
from service.review.reviews import Reviews
from service.settings import BACKUPS_FOLDER, Settings
from service.storage.keys import AdminKey, Keys
from service.upkeep.jobs import JobRunner


def create_app(
    gallery: Gallery,
    runner: JobRunner,
    settings: Settings,
    calibration: Calibration | None = None,
    classification: Classification | None = None,
    reviews: Reviews | None = None,
    probabilities: str = UNCALIBRATED,
) -> FastAPI:
    """The application that serves an open gallery and runs its jobs; who opened them closes them.

    `calibration` is that of the gallery's model, if it has one; without it, probabilities and verdicts are null.
    `probabilities` says in words where they come from, or why there are none.
    A classifier may be served beside the gallery. `reviews` are those whose jobs the runner does.
    """
    keys = Keys(gallery.database, settings.admin_secret)
    reviews = reviews or Reviews(gallery.database, gallery.worker.publish)
    app = _app("Re-ID gallery", "Find the same person, vehicle or animal again.", keys.find, gallery.metrics, settings)
    app.include_router(queries(gallery, settings, calibration))
    app.include_router(without_classifier() if classification is None else classes(classification, settings))
    app.include_router(items(gallery, settings, runner))
    app.include_router(boxes(gallery))
    app.include_router(pictures(gallery))
    app.include_router(attention(gallery.attention, settings))
    app.include_router(neighbours(gallery, calibration))
    app.include_router(subjects(gallery, settings))
    app.include_router(shortlists(gallery))
    app.include_router(imports(gallery, settings, runner))
    app.include_router(review(gallery, runner, reviews))
    app.include_router(identities_router(gallery))
    app.include_router(catalogue(gallery, reviews))
    app.include_router(keys_router(keys))
    app.include_router(audit(gallery.store, gallery.queries))
    app.include_router(jobs(runner, gallery.model_id))
    app.include_router(state(gallery, settings, calibration, probabilities))
    app.include_router(erasure(gallery, settings.backups or gallery.folder / BACKUPS_FOLDER))
    app.include_router(health(gallery, classification))
    app.include_router(page())
    return app


def create_classifier_app(classification: Classification, settings: Settings) -> FastAPI:
    """The application that serves a classifier alone; who made it closes it.

    Keys are kept in galleries, so that there is at most the one of the settings here.
    """
    find_key = AdminKey(settings.admin_secret).find
    app = _app("Classifier", "Tell fine-grained categories apart.", find_key, classification.metrics, settings)
    app.include_router(classes(classification, settings))
    app.include_router(attention(classification.attention, settings))
    app.include_router(health(None, classification))
    app.include_router(without_gallery())
    return app


def _app(title: str, summary: str, find_key: FindKey, measured: Metrics, settings: Settings) -> FastAPI:
    """What both have: who may ask, errors in one shape, a description, metrics."""
    app = FastAPI(
        title=title,
        summary=summary,
        version="1",
        redirect_slashes=False,  # by an address with whatever host it was asked by
        docs_url=None,  # these pages would fetch scripts from elsewhere; `page` has one that does not
        redoc_url=None,
    )
    # Of middleware, what is added last is asked first: a refusal for want of a key reads no body and has the one shape.
    app.add_middleware(Heads)
    app.add_middleware(Utf8Forms)
    app.add_middleware(ShallowJson, max_size=MAX_JSON)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_JSON)
    hosts = settings.allowed_hosts + ([settings.public_host] if settings.public_host else [])
    origins = settings.cors_origins + ([settings.public_origin] if settings.public_origin else [])
    access.install(app, find_key, settings.keys_required, hosts, origins=origins, behind_proxy=settings.behind_proxy)
    problems.install(app)
    description.install(app)
    app.add_middleware(Observed, metrics=measured)
    app.add_middleware(Drained)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", "Idempotency-Key"],
            expose_headers=[REQUEST_ID, "Retry-After", "Location"],
        )
    app.include_router(session(find_key))
    app.include_router(metrics(measured))
    return app
