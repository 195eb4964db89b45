"""The HTTP interface of a gallery, put together from its routes."""

from fastapi import FastAPI
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from reid.retrieval.calibration import Calibration
from service.api import access, description, problems
from service.api.audit import audit
from service.api.health import health
from service.api.items import items
from service.api.jobs import jobs
from service.api.keys import keys_router
from service.api.metrics import Observed, metrics
from service.api.page import page
from service.api.pictures import pictures
from service.api.queries import queries
from service.api.session import session
from service.api.uploads import MAX_JSON, Utf8Forms
from service.gallery import Gallery
from service.jobs import JobRunner
from service.settings import Settings
from service.storage.keys import Keys


def create_app(
    gallery: Gallery, runner: JobRunner, settings: Settings, calibration: Calibration | None = None
) -> FastAPI:
    """The application that serves an open gallery and runs its jobs; who opened them closes them.

    `calibration` is that of the gallery's model, if it has one; without it, probabilities and verdicts are null.
    """
    app = FastAPI(
        title="Re-ID gallery",
        summary="Find the same person, vehicle or animal again.",
        version="1",
        docs_url=None,  # these pages would fetch scripts from elsewhere
        redoc_url=None,
    )
    # Of middleware, what is added last is asked first: a refusal for want of a key reads no body and has the one shape.
    secret = None if settings.admin_key is None else settings.admin_key.get_secret_value()
    keys = Keys(gallery.database, secret)
    app.add_middleware(Utf8Forms)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_JSON)
    access.install(app, keys, settings.keys_required, settings.allowed_hosts)
    problems.install(app)
    description.install(app)
    app.add_middleware(Observed, metrics=gallery.metrics)
    app.include_router(queries(gallery, settings, calibration))
    app.include_router(items(gallery, settings))
    app.include_router(pictures(gallery, settings))
    app.include_router(session(keys))
    app.include_router(keys_router(keys))
    app.include_router(audit(gallery.store, gallery.queries))
    app.include_router(jobs(runner, gallery.model_id))
    app.include_router(health(gallery))
    app.include_router(metrics(gallery.metrics))
    app.include_router(page())
    return app
