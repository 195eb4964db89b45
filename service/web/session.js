/** Who is asking: the sign-in dialog, and what the key allows. */

import * as api from "./api.js";
import { byId } from "./dom.js";

const dialog = byId("sign-in");
const field = byId("api-key");
const problem = byId("sign-in-problem");

const LOCAL = "local"; // who needs no key

let scopes = new Set();
let cameras = null;
let asking = null;

/** Whether the key has a scope. */
export function may(scope) {
  return scopes.has(scope);
}

/** Whether the key shows the photos of all cameras. */
export function seesAll() {
  return cameras === null;
}

/** Learn what the key allows; asks for a key where one is needed. */
export async function startSession() {
  api.onUnauthorized(askForKey);
  byId("sign-in-cancel").addEventListener("click", () => dialog.close());
  byId("sign-out").addEventListener("click", async () => {
    await api.closeSession();
    location.reload(); // so that nothing of it stays on the page
  });
  dialog.querySelector("form").addEventListener("submit", submit);
  try {
    const session = await api.session();
    scopes = new Set(session.scopes);
    cameras = session.cameras;
    byId("sign-out").hidden = session.actor === LOCAL;
  } catch (error) {
    byId("sign-out").hidden = error.status !== 403; // a key that may not even ask what it may
    throw error;
  }
}

/** Show the dialog, once for all requests that wait for it; resolves to whether someone signed in. */
function askForKey() {
  asking ??= new Promise((resolve) => {
    field.value = "";
    problem.textContent = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "signed in"), { once: true });
    dialog.showModal();
  }).finally(() => {
    asking = null;
  });
  return asking;
}

async function submit(event) {
  event.preventDefault();
  try {
    await api.openSession(field.value);
    dialog.close("signed in");
  } catch (error) {
    problem.textContent = error.message;
    field.select();
  }
}
