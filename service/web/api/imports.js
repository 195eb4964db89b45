/** Imports: files that are sent part by part, looked at, and enrolled by a job of the service. */

import { json, request } from "../http.js";

export const MOST_ANNOUNCED = 1000; // files in one request

const pathOf = (importId, part = "") => `/v1/imports/${encodeURIComponent(importId)}${part}`;
const fileOf = (importId, name) => pathOf(importId, `/files/${encodeURIComponent(name)}`);

export const imports = async () => (await json("GET", "/v1/imports")).imports;
export const getImport = (importId) => json("GET", pathOf(importId));
export const createImport = (settings) => json("POST", "/v1/imports", { body: settings });
export const editImport = (importId, settings) => json("PATCH", pathOf(importId), { body: settings });
export const deleteImport = (importId) => request("DELETE", pathOf(importId));

/** Tell which files will be sent; each is answered with how much of it is there, or why it is not taken. */
export const announce = async (importId, files) =>
  (await json("POST", pathOf(importId, "/files"), { body: { files } })).files;

/** How much of a file is there. */
export const received = async (importId, name) => (await json("GET", fileOf(importId, name))).received;

/** Send a part of a file; tells how much is there then. */
export const sendPart = async (importId, name, offset, part, signal) =>
  (await json("PUT", `${fileOf(importId, name)}?offset=${offset}`, { body: part, signal })).received;

/** The first of the files that have not come whole. */
export const missing = async (importId, limit) =>
  (await json("GET", pathOf(importId, `/files?missing=true&limit=${limit}`))).files;

/** The first of its files. */
export const files = async (importId) => (await json("GET", pathOf(importId, "/files?limit=1000"))).files;

/** Take a file out of an import. */
export const removeFile = (importId, name) => request("DELETE", fileOf(importId, name));

/** Say where the clocks of an import were that was done. */
export const placeIn = (importId, timezone) =>
  json("POST", pathOf(importId, "/timezone"), { body: { timezone, dry_run: false } });

/** Take back what an import changed of photos in one step. */
export const undoImport = (importId, step) => json("POST", pathOf(importId, "/undo"), { body: { batch_id: step } });

export const preview = (importId) => json("POST", pathOf(importId, "/preview"));
export const startImport = (importId, incomplete = false) =>
  json("POST", pathOf(importId, `/start?incomplete=${incomplete}`));
export const cancelImport = (importId) => json("POST", pathOf(importId, "/cancel"));
export const retryImport = (importId) => json("POST", pathOf(importId, "/retry"));

/** The first photos that became one of some kinds. */
export const photos = async (importId, became, limit) =>
  (await json("GET", pathOf(importId, `/photos?${new URLSearchParams([...became.map((one) => ["became", one]), ["limit", limit]])}`)))
    .photos;
