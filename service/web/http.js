/** Requests to the service. Everything refused is thrown as a `Problem`, whose message is for people. */

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

/** The path below which the service is seen, as a proxy may have it below another one; without a slash at its end. */
export const ROOT = new URL(".", document.baseURI).pathname.slice(0, -1);

/** Emits "written" (detail: the path) after each request that changed something. @type {any} */
export const writes = new EventTarget();

let signIn = async () => false;

/** Say what to do about a missing key: `ask` resolves to whether there is one now. */
export function onUnauthorized(ask) {
  signIn = ask;
}

/**
 * Send a request, again where the service is busy or a key was missing.
 * @param {string} method
 * @param {string} path as the API names it
 * @param {{body?: any, signal?: AbortSignal, keepalive?: boolean, asksForKey?: boolean, once?: ?string}} options what is no form, nor bytes, is
 * sent as JSON; what has the same key `once` is done once
 * @returns {Promise<Response>}
 */
export async function request(method, path, { body, signal, keepalive = false, asksForKey = true, once = null } = {}) {
  const plain = body instanceof FormData || body instanceof Blob || body === undefined;
  const kind = body instanceof Blob ? "application/octet-stream" : plain ? null : "application/json";
  /** @type {RequestInit} */
  const options = {
    ...{ method, signal, keepalive, credentials: "same-origin" },
    body: plain ? body : JSON.stringify(body),
    headers: { ...(kind !== null && { "Content-Type": kind }), ...(once !== null && { "Idempotency-Key": once }) },
  };
  const response = await insist(() => reach(path, options), signal, asksForKey);
  if (method !== "GET") writes.dispatchEvent(new CustomEvent("written", { detail: path }));
  return response;
}

/**
 * Send files by POST, and tell how far that is.
 * @param {string} path
 * @param {FormData} body
 * @param {{signal?: AbortSignal, progress?: (share: number) => void}} options
 */
export function send(path, body, { signal, progress = () => {} } = {}) {
  return insist(() => upload(path, body, signal, progress), signal, true);
}

/** Try until there is an answer that stays. */
async function insist(attempt, signal, asksForKey) {
  for (let tried = 0; ; tried++) {
    const response = await attempt();
    if (response.ok) return response;
    if (response.status === 401 && asksForKey && (await signIn())) continue;
    const seconds = response.headers.get("Retry-After");
    if (seconds === null || tried === MOST_RETRIES) throw await problem(response);
    await pause(Math.min(Number(seconds), MOST_SECONDS), signal);
  }
}

async function reach(path, options) {
  try {
    return await fetch(ROOT + path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

function unreachable() {
  return new Problem("The service cannot be reached. Is it running?", 0, "unreachable");
}

/** As `reach`, by the older interface, the only one that tells how much is sent. @returns {Promise<Response>} */
function upload(path, body, signal, progress) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const asked = new XMLHttpRequest();
    asked.open("POST", ROOT + path);
    asked.responseType = "blob";
    asked.upload.addEventListener("progress", ({ loaded, total }) => progress(loaded / total));
    asked.addEventListener("load", () => {
      const headers = { "Retry-After": asked.getResponseHeader("Retry-After") };
      resolve(new Response(asked.response, { status: asked.status, headers: headers["Retry-After"] === null ? {} : headers }));
    });
    asked.addEventListener("error", () => reject(unreachable()));
    asked.addEventListener("abort", () => reject(signal.reason));
    signal?.addEventListener("abort", () => asked.abort(), { once: true });
    asked.send(body);
  });
}

async function problem(response) {
  const told = await response.json().catch(() => ({}));
  return new Problem(told.detail ?? `The service answered ${response.status}.`, response.status, told.code ?? "");
}

/** Wait; rejects when the signal is given. @returns {Promise<void>} */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stopped = () => reject(signal.reason);
    signal?.addEventListener("abort", stopped, { once: true });
    setTimeout(() => {
      signal?.removeEventListener("abort", stopped);
      resolve();
    }, 1000 * seconds);
  });
}

/** The same; gives what the answer holds. */
export async function json(method, path, options) {
  return (await request(method, path, options)).json();
}
