"""Routes of long work: backup, re-index and reconciliation are started, watched and cancelled."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from service.api.access import caller_of, cause_of
from service.api.problems import documented
from service.records import NotFound
from service.upkeep.jobs import JobRunner
from service.wire.admin_schemas import Job, JobPage, JobQuery

JobId = Annotated[str, Path(max_length=200)]


def jobs(runner: JobRunner, model_id: str) -> APIRouter:
    """`/v1/jobs`, and those of `/v1/admin` that start one."""
    router = APIRouter(tags=["jobs"])

    def start(kind: str, parameters: dict[str, Any], request: Request, response: Response) -> Job:
        job = runner.start(kind, parameters, cause_of(request))
        response.headers["Location"] = f"/v1/jobs/{job.job_id}"
        return Job.of(job)

    @router.post("/v1/admin/backup", status_code=202, responses=documented(409, 422, 503))
    def backup(request: Request, response: Response, dry_run: bool = False) -> Job:
        """Write the gallery, as it is now, to a folder that can be served in its place.

        A dry run tells how much would be written, whether that fits, and which pictures are not there.
        """
        return start("backup", {"dry_run": dry_run}, request, response)

    @router.post("/v1/admin/reindex", status_code=202, responses=documented(409, 422, 503))
    def reindex(request: Request, response: Response, dry_run: bool = False) -> Job:
        """Embed all enrolled photos by the model that is loaded, then serve the gallery with it.

        A dry run counts the items that would be embedded, and tells which would be left out for want of their picture.
        """
        return start("reindex", {"model_id": model_id, "dry_run": dry_run}, request, response)

    @router.post("/v1/admin/reconcile", status_code=202, responses=documented(404, 409, 503))
    def reconcile(request: Request, response: Response) -> Job:
        """Compare the search index on a server with the gallery, row by row, and mend what differs."""
        return start("reconcile", {}, request, response)

    @router.post("/v1/admin/expire", status_code=202, responses=documented(404, 409, 422, 503))
    def expire(request: Request, response: Response, dry_run: bool = True) -> Job:
        """Delete the items that are kept for longer than REID_KEEP_DAYS; a dry run, the default, counts them.

        Without that setting there is no such job; with it, it runs each day.
        """
        return start("expire", {"dry_run": dry_run}, request, response)

    @router.post("/v1/admin/check", status_code=202, responses=documented(404, 409, 503))
    def check(request: Request, response: Response) -> Job:
        """Read all that the gallery keeps, and tell which pictures and vectors are lost or damaged."""
        return start("check", {}, request, response)

    @router.get("/v1/jobs", responses=documented(422, 503))
    def page(wanted: Annotated[JobQuery, Query()]) -> JobPage:
        """List the jobs, the newest first."""
        found = runner.jobs.page(wanted.cursor, wanted.limit + 1)
        shown = found[: wanted.limit]
        return JobPage(
            jobs=[Job.of(job) for job in shown], next_cursor=shown[-1].number if len(found) > wanted.limit else None
        )

    @router.get("/v1/jobs/{job_id}", responses=documented(404, 422, 503))
    def get(job_id: JobId, request: Request) -> Job:
        """One job: how far it is, or how it ended; for who started it, and for admins."""
        caller, job = caller_of(request), runner.jobs.get(job_id)
        if "admin" not in caller.scopes and job.actor != caller.actor:
            raise NotFound(f"no job {job_id!r}")
        return Job.of(job)

    @router.post("/v1/jobs/{job_id}/cancel", status_code=202, responses=documented(404, 409, 422, 503))
    def cancel(job_id: JobId, request: Request) -> Job:
        """Ask a job to end: a queued one ends at once, a running one soon."""
        return Job.of(runner.jobs.cancel(job_id, cause_of(request)))

    return router
