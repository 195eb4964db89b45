/** The HTTP API: one function a route. */

import { json, request, ROOT } from "./http.js";

export { onUnauthorized, Problem } from "./http.js";

const MOST_IDS = 1000; // of one request
const itemPath = (itemId, part = "") => `/v1/items/${encodeURIComponent(itemId)}${part}`;

export const query = (form, signal) => json("POST", "/query", { body: form, signal });
export const enrol = (form) => json("POST", "/v1/items", { body: form });
export const getItem = (itemId) => json("GET", itemPath(itemId));
export const editItem = (itemId, changes) => json("PATCH", itemPath(itemId), { body: changes });
export const deleteItem = (itemId) => request("DELETE", itemPath(itemId), { keepalive: true });
/** Enrol boxes in the photo of an item, each as `{box, label}`; gives a result for each. */
export const enrolBoxes = async (itemId, boxes) => (await json("POST", itemPath(itemId, "/boxes"), { body: { boxes } })).results;
/** A page of items, as the fields ask for it. */
export const listItems = (fields, signal = undefined) => json("GET", `/v1/items?${fields}`, { signal });

/** The items of all pages. */
export async function allItems(fields) {
  const found = [];
  for (let cursor = 0; cursor !== null; ) {
    fields.set("cursor", String(cursor));
    const page = await listItems(fields);
    found.push(...page.items);
    cursor = page.next_cursor;
  }
  return found;
}

export const days = async (fields) => (await json("GET", `/v1/days?${fields}`)).days;

/** A key that no other request has. */
export const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

/** Change many items, or count them; `wanted` is as the API has it. */
export const editItems = (wanted, once = null) => json("POST", "/v1/items/edit", { body: wanted, once });

/** Change items of any number of ids, or as many as `expected` that pass a filter, `once` by a key; tells the steps that undo it. */
export async function editAll(chosen, wanted, expected, once = null) {
  const portions = chosen.item_ids ? inPortions(chosen.item_ids).map((ids) => ({ item_ids: ids })) : [{ ...chosen, expected }];
  const steps = [];
  let changed = 0;
  for (const portion of portions) {
    const done = await editItems({ ...portion, ...wanted, dry_run: false }, once);
    steps.push(done.batch_id);
    changed += done.changed;
  }
  return { steps, changed };
}

/** Take an edit of many items back. */
export const undoEdit = (batchId) => json("POST", "/v1/items/edit/undo", { body: { batch_id: batchId } });

/** Delete items of any number of ids. */
export async function deleteItems(itemIds) {
  for (const ids of inPortions(itemIds)) {
    await request("POST", "/v1/items/delete", { body: { item_ids: ids, dry_run: false }, keepalive: true });
  }
}

/** Delete all items that pass a filter. */
export const deleteMatching = (wanted) => json("POST", "/v1/items/delete", { body: wanted });

const listPath = (id, part = "") => `/v1/shortlists/${encodeURIComponent(id)}${part}`;
export const shortlists = async () => (await json("GET", "/v1/shortlists")).shortlists;
export const shortlist = (id) => json("GET", listPath(id));
export const createShortlist = (wanted) => json("POST", "/v1/shortlists", { body: wanted });
export const editShortlist = (id, changes) => json("PATCH", listPath(id), { body: changes });
export const deleteShortlist = (id) => request("DELETE", listPath(id));

/** Put items of any number of ids at the end of a shortlist. */
export async function addToShortlist(id, itemIds) {
  for (const ids of inPortions(itemIds)) await json("POST", listPath(id, "/items"), { body: { item_ids: ids } });
}

/** Where a shortlist is as a file: its `table` or `report`. */
export const shortlistUrl = (id, kind) => ROOT + listPath(id, `/${kind}`);

export const jobs = async () => (await json("GET", "/v1/jobs?limit=20")).jobs;
/** Start a job; a dry run tells what it would do. */
export const startJob = (kind, dryRun = false) => json("POST", `/v1/admin/${kind}${dryRun ? "?dry_run=true" : ""}`);
export const cancelJob = (jobId) => json("POST", `/v1/jobs/${encodeURIComponent(jobId)}/cancel`);
export const keys = async () => (await json("GET", "/v1/admin/keys")).keys;
export const addKey = (wanted) => json("POST", "/v1/admin/keys", { body: wanted });
export const revokeKey = (keyId) => request("DELETE", `/v1/admin/keys/${encodeURIComponent(keyId)}`);
/** The changes of the gallery that fields ask for, the newest first. */
export const operations = (fields) => json("GET", `/v1/admin/operations?${fields}`);
/** The queries that fields ask for, the newest first. */
export const loggedQueries = (fields) => json("GET", `/v1/admin/queries?${fields}`);
/** The room on the disk; takes a while where there are many files. */
export const disk = () => json("GET", "/v1/admin/disk");
/** The model that is loaded. */
export const model = () => json("GET", "/v1/admin/model");

function inPortions(ids) {
  const portions = [];
  for (let start = 0; start < ids.length; start += MOST_IDS) portions.push(ids.slice(start, start + MOST_IDS));
  return portions;
}

export const cameras = async () => (await json("GET", "/v1/cameras")).cameras;
export const labels = async () => (await json("GET", "/v1/labels")).labels;
export const ready = () => json("GET", "/health/ready");
export const session = () => json("GET", "/v1/session");
export const openSession = (key) => request("POST", "/v1/session", { body: { key }, asksForKey: false });
export const closeSession = () => request("DELETE", "/v1/session", { asksForKey: false });

/** Where what an item shows is, or the whole photo that it is a box of. */
export const imageUrl = (itemId, whole = false) => ROOT + itemPath(itemId, whole ? "/image?whole=true" : "/image");

/** The whole photo of an item as a file, for routes that take files. */
export async function fileOfItem(itemId) {
  return new File([await (await request("GET", itemPath(itemId, "/image?whole=true"))).blob()], itemId);
}

/** Where a small copy of it is. */
export const thumbnailUrl = (itemId) => ROOT + itemPath(itemId, "/thumbnail");

/** Where it is in sizes of which a browser takes the one that its screen needs, as `srcset` has them. */
export const thumbnailSizes = (itemId) => `${thumbnailUrl(itemId)}?small=true 160w, ${thumbnailUrl(itemId)} 256w`;

/** The attention over the photo of an item, as a picture. */
export const itemAttention = async (itemId) => (await request("GET", itemPath(itemId, "/attention"))).blob();

/** The attention over a photo that is not enrolled, or over a box in it, as forms have it. */
export async function photoAttention(file, box = "") {
  const form = photos([file]);
  if (box !== "") form.set("box", box);
  return (await request("POST", "/v1/attention", { body: form })).blob();
}

/** The most probable classes of each of some photos. */
export async function classify(files, count) {
  const form = photos(files);
  form.append("top_k", count);
  return (await json("POST", "/v1/classify", { body: form })).results;
}

function photos(files) {
  const form = new FormData();
  for (const file of files) form.append("image", file, file.name);
  return form;
}
