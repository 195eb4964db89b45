/** The HTTP API: individuals, which it calls identities. */

import { json, ROOT } from "../http.js";

const path = (identityId, act = "") => `/v1/identities/${encodeURIComponent(identityId)}${act}`;

/** A page of them: `q`, `sort`, `cursor`, `limit`. */
export const identities = (wanted) => json("GET", `/v1/identities?${new URLSearchParams(wanted)}`);
export const identity = (identityId) => json("GET", path(identityId));
export const createIdentity = (body) => json("POST", "/v1/identities", { body });
export const editIdentity = (identityId, body) => json("PATCH", path(identityId), { body });

/** With `dry_run` in the body, these tell what they would do. */
export const merge = (identityId, body) => json("POST", path(identityId, "/merge"), { body });
export const split = (identityId, body) => json("POST", path(identityId, "/split"), { body });
export const unmerge = (identityId, body) => json("POST", path(identityId, "/unmerge"), { body });

/** Where the catalogue is as a table; `wanted` is `format`, `likely` and, for Wildbook, `species`. */
export const catalogueUrl = (wanted) => `${ROOT}/v1/catalogue?${new URLSearchParams(wanted)}`;
