/** Files on their way into imports, whatever view is shown: a few at a time, part by part, until all have come. */

import * as api from "../api/imports.js";
import { pathOf } from "../files.js";
import { pause } from "../http.js";
import { imports as words } from "../words.js";

const AT_ONCE = 3;
const PART = 4 * 2 ** 20; // bytes
const SECONDS_UNTIL_TRIED_AGAIN = 3;

/** Emits "changed" whenever a file, or a part of one, has come. */
export const sending = new EventTarget();

/**
 * How far the sending of an import is; `waiting` says why nothing comes through at the moment.
 * `there` are files that had come before.
 * @typedef {{importId: string, files: number, bytes: number, sent: number, done: number, there: number, waiting: string,
 *   refused: {name: string, reason: string}[], stop: AbortController, ended: boolean}} Sending
 */

/** @type {Map<string, Sending>} */
const known = new Map();

/** What this page knows of the sending of an import, if it sends or sent any of it. */
export function sendingOf(importId) {
  return known.get(importId);
}

/** The import that is being sent now, if there is one. */
export function underWay() {
  return [...known.values()].find((one) => !one.ended);
}

/** Send files into an import; those that are there already are not sent again. Resolves to whether all came. */
export async function send(importId, files, refused = []) {
  const before = known.get(importId);
  /** @type {Sending} */
  const one = {
    ...{ importId, files: files.length, bytes: 0, sent: 0, done: 0, there: 0, waiting: "" },
    ...{ refused: [...(before?.refused ?? []), ...refused], stop: new AbortController(), ended: false },
  };
  known.set(importId, one);
  try {
    const queue = await announceAll(one, files);
    tell();
    const workers = Array.from({ length: AT_ONCE }, async () => {
      for (let next = queue.shift(); next; next = queue.shift()) await sendFile(one, next);
    });
    await Promise.all(workers);
    return true;
  } catch (error) {
    if (one.stop.signal.aborted) return false;
    one.stop.abort();
    throw error;
  } finally {
    one.ended = true;
    tell();
  }
}

/** Stop sending; what has come stays. */
export function stopSending(importId) {
  known.get(importId)?.stop.abort();
}

function tell() {
  sending.dispatchEvent(new Event("changed"));
}

/** Have the service know all files; gives those of which something has to be sent. */
async function announceAll(one, files) {
  const queue = [];
  for (let start = 0; start < files.length; start += api.MOST_ANNOUNCED) {
    const some = files.slice(start, start + api.MOST_ANNOUNCED);
    const asked = some.map((file) => ({ name: pathOf(file), size: file.size }));
    const answers = await insist(one, () => api.announce(one.importId, asked));
    answers.forEach(({ name, received, error }, place) => {
      const file = some[place];
      if (error) {
        one.refused.push({ name, reason: error.detail });
        one.files -= 1;
        return;
      }
      one.bytes += file.size;
      one.sent += received;
      if (received === file.size && file.size > 0) {
        one.done += 1;
        one.there += 1;
      } else queue.push({ name, file, received });
    });
  }
  return queue;
}

async function sendFile(one, { name, file, received }) {
  let there = received;
  do {
    let part;
    try {
      part = new Blob([await file.slice(there, there + PART).arrayBuffer()]);
    } catch {
      one.refused.push({ name, reason: words.unreadable });
      return;
    }
    const now = await insist(one, async () => {
      try {
        return await api.sendPart(one.importId, name, there, part, one.stop.signal);
      } catch (error) {
        if (error.status !== 409) throw error;
        const known = await api.received(one.importId, name); // of a part whose answer was lost, say
        if (known === there) await pause(SECONDS_UNTIL_TRIED_AGAIN, one.stop.signal); // another tab is sending it
        return known;
      }
    });
    one.sent += now - there;
    there = now;
    tell();
  } while (there < file.size);
  one.done += 1;
  tell();
}

/** Do something until the service answers; a refusal is thrown. */
async function insist(one, attempt) {
  for (;;) {
    one.stop.signal.throwIfAborted();
    try {
      const answer = await attempt();
      one.waiting = "";
      return answer;
    } catch (error) {
      if (error.status !== 0 && !(error.status >= 500)) throw error;
      one.waiting = error.message;
      tell();
      await pause(SECONDS_UNTIL_TRIED_AGAIN, one.stop.signal);
    }
  }
}

addEventListener("beforeunload", (event) => {
  if (underWay()) event.preventDefault();
});
