/** What becomes of imports, looked at from time to time while one runs, and told in a line on every view. */

import * as api from "../api/imports.js";
import { byId, element } from "../dom.js";
import { percent } from "../format.js";
import { tellAdded } from "../items.js";
import { refreshNames } from "../names.js";
import { address } from "../router.js";
import { imports as words } from "../words.js";
import { sending, underWay } from "./sending.js";

const SECONDS = 1.5; // between looks at one that runs
const RUNNING = ["queued", "running"];

/** Emits "changed" whenever the list was read anew. */
export const watched = new EventTarget();

let list = [];
let timer = null;
let looking = null;

/** All imports, as they were last looked at, the newest first. */
export function known() {
  return list;
}

/** Look at the imports now, and again for as long as one runs; one look at a time. */
export function look() {
  clearTimeout(timer);
  looking ??= read().finally(() => {
    looking = null;
  });
  return looking;
}

/** Show the line, and look for imports of earlier visits. */
export async function startWatching() {
  sending.addEventListener("changed", draw);
  await look();
}

async function read() {
  const ran = new Set(list.filter(isRunning).map((one) => one.import_id));
  try {
    list = await api.imports();
  } catch (error) {
    if (error.status >= 400 && error.status < 500) return; // a key that may not see them
    timer = setTimeout(look, 1000 * SECONDS); // an outage
    return;
  }
  if (list.some(isRunning)) timer = setTimeout(look, 1000 * SECONDS);
  if (list.some((one) => ran.has(one.import_id) && !isRunning(one))) {
    tellAdded();
    refreshNames().catch(() => {}); // they are read again with the next look
  }
  draw();
  watched.dispatchEvent(new Event("changed"));
}

export function isRunning(one) {
  return RUNNING.includes(one.state);
}

function draw() {
  const line = byId("import-state");
  const said = saying();
  line.hidden = said === null;
  if (said === null) return;
  const link = line.querySelector("a") ?? line.appendChild(element("a"));
  link.setAttribute("href", address("imports", [said.importId]));
  if (link.textContent !== said.text) link.textContent = said.text;
}

/** What the line says of which import; null where there is nothing to say. */
function saying() {
  const one = underWay();
  if (one) {
    const share = one.bytes > 0 ? percent(one.sent / one.bytes) : "";
    return { importId: one.importId, text: one.waiting ? words.line.waiting : words.line.sending(share) };
  }
  const running = list.find(isRunning);
  if (running) {
    const share = running.total ? percent(running.done / running.total) : "";
    return { importId: running.import_id, text: words.line.running(share) };
  }
  const unfinished = list.find((other) => other.state === "receiving" && other.files > 0);
  return unfinished ? { importId: unfinished.import_id, text: words.line.unfinished } : null;
}
