/** The HTTP API: questions, decisions, conflicts. */

import { json } from "../http.js";

export const startReview = (plan) => json("POST", "/v1/review/start", { body: plan });
export const job = (jobId) => json("GET", `/v1/jobs/${encodeURIComponent(jobId)}`);
export const status = () => json("GET", "/v1/review/status");
export const nextQuestion = async () => (await json("GET", "/v1/review/next")).question;
export const conflicts = async () => (await json("GET", "/v1/review/conflicts")).conflicts;
export const machineJoins = (cursor, limit) => json("GET", `/v1/decisions?basis=machine&cursor=${cursor}&limit=${limit}`);

/** Decide in one step: each decision is an answer to a `question_id`, or about `a` and `b`. */
export const decide = (decisions) => json("POST", "/v1/decisions", { body: { decisions } });

/** Take a step back, or with `dryRun` tell what that would do. */
export const undo = (batchId, dryRun = false) =>
  json("POST", "/v1/decisions/undo", { body: { batch_id: batchId, dry_run: dryRun } });
