/** The HTTP API: one function a route. Everything refused is thrown as a `Problem`, whose message is for people. */

const MOST_RETRIES = 5;
const MOST_SECONDS = 10;

/** A refusal; `status` is 0 where the service could not be reached. */
export class Problem extends Error {
  constructor(detail, status, code) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

let signIn = async () => false;

/** Say what to do about a missing key: `ask` resolves to whether there is one now. */
export function onUnauthorized(ask) {
  signIn = ask;
}

async function request(method, path, { body, signal, keepalive = false, asksForKey = true } = {}) {
  const form = body instanceof FormData || body === undefined;
  const options = {
    ...{ method, signal, keepalive, credentials: "same-origin" },
    body: form ? body : JSON.stringify(body),
    headers: form ? {} : { "Content-Type": "application/json" },
  };
  for (let tried = 0; ; tried++) {
    const response = await reach(path, options);
    if (response.ok) return response;
    if (response.status === 401 && asksForKey && (await signIn())) continue;
    const seconds = response.headers.get("Retry-After");
    if (seconds === null || tried === MOST_RETRIES) throw await problem(response);
    await pause(Math.min(Number(seconds), MOST_SECONDS), signal);
  }
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service cannot be reached. Is it running?", 0, "unreachable");
  }
}

async function problem(response) {
  const told = await response.json().catch(() => ({}));
  return new Problem(told.detail ?? `The service answered ${response.status}.`, response.status, told.code ?? "");
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stopped = () => reject(signal.reason);
    signal?.addEventListener("abort", stopped, { once: true });
    setTimeout(() => {
      signal?.removeEventListener("abort", stopped);
      resolve();
    }, 1000 * seconds);
  });
}

async function json(method, path, options) {
  return (await request(method, path, options)).json();
}

const itemPath = (itemId, part = "") => `/v1/items/${encodeURIComponent(itemId)}${part}`;

export const query = (form, signal) => json("POST", "/query", { body: form, signal });
export const enrol = (form) => json("POST", "/v1/items", { body: form });
export const getItem = (itemId) => json("GET", itemPath(itemId));
export const editItem = (itemId, changes) => json("PATCH", itemPath(itemId), { body: changes });
export const deleteItem = (itemId) => request("DELETE", itemPath(itemId), { keepalive: true });
export const listItems = (limit, cursor) => json("GET", `/v1/items?limit=${limit}&cursor=${cursor}`);
export const cameras = async () => (await json("GET", "/v1/cameras")).cameras;
export const labels = async () => (await json("GET", "/v1/labels")).labels;
export const ready = () => json("GET", "/health/ready");
export const session = () => json("GET", "/v1/session");
export const openSession = (key) => request("POST", "/v1/session", { body: { key }, asksForKey: false });
export const closeSession = () => request("DELETE", "/v1/session", { asksForKey: false });

/** Where the photo of an item is. */
export const imageUrl = (itemId) => itemPath(itemId, "/image");

/** Where a small copy of it is. */
export const thumbnailUrl = (itemId) => itemPath(itemId, "/thumbnail");

/** The attention over the photo of an item, as a picture. */
export const itemAttention = async (itemId) => (await request("GET", itemPath(itemId, "/attention"))).blob();

/** The attention over a photo that is not enrolled. */
export const photoAttention = async (file) => (await request("POST", "/v1/attention", { body: photos([file]) })).blob();

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
