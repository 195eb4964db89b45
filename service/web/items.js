/** Changes to enrolled photos, told to every list on the page by events of `changes`. */

import * as api from "./api.js";
import { count } from "./format.js";
import { toast } from "./toasts.js";

const SECONDS_TO_UNDO = 8;
const SECONDS_TO_UNDO_EDITS = 30;

/**
 * Events `edited` (detail: the item), `removed` and `restored` (detail: its id), `deleted`, and `added` (detail: the item, or null).
 * @type {any} a plain target knows of no details
 */
export const changes = new EventTarget();

/**
 * What can still be taken back, oldest first; of deletes, `commit` does it in the end.
 * @type {Set<{undo: () => void, hide: () => void, timer: number, commit: ?(() => Promise<void>)}>}
 */
const waiting = new Set();
const removed = new Set();

function tell(type, detail) {
  changes.dispatchEvent(new CustomEvent(type, { detail }));
}

/** Whether an item is deleted, or about to be. */
export function isRemoved(itemId) {
  return removed.has(itemId);
}

/** Change what is said of an item. */
export async function editItem(itemId, values) {
  const item = await api.editItem(itemId, values);
  tell("edited", item);
  return item;
}

/** Say that photos were enrolled; one item, if it is known, has its place beside others of its photo. */
export function tellAdded(item = null) {
  tell("added", item);
}

/** Say that an item was deleted. */
export function tellDeleted(itemId) {
  removed.add(itemId);
  tell("removed", itemId);
  tell("deleted", itemId);
}

/** Delete items, once the time to take that back has passed. */
export function removeItems(items) {
  const ids = items.map((item) => item.item_id).filter((itemId) => !removed.has(itemId));
  if (ids.length === 0) return;
  for (const itemId of ids) {
    removed.add(itemId);
    tell("removed", itemId);
  }
  const what = ids.length === 1 ? (items[0].label ?? "a photo") : count(ids.length, "photo");
  offerUndo(`Deleted ${what}.`, () => ids.forEach(restore), SECONDS_TO_UNDO, () => commit(ids));
}

/** Delete an item, once the time to take that back has passed. */
export function removeItem(item) {
  removeItems([item]);
}

/** Say what was done, with a button and a key that take it back for a while. */
export function undoable(text, undo) {
  offerUndo(text, undo, SECONDS_TO_UNDO_EDITS, null);
}

/** Take back the last that can be. */
export function undoLast() {
  [...waiting].at(-1)?.undo();
}

function offerUndo(text, undo, seconds, commit) {
  const take = () => {
    settle(one);
    undo();
  };
  const hide = toast(text, { name: "Undo", run: take }, null);
  const end = () => (commit ? one.commit() : settle(one));
  const committed = async () => {
    settle(one);
    await commit();
  };
  const one = { undo: take, hide, timer: setTimeout(end, 1000 * seconds), commit: commit && committed };
  waiting.add(one);
}

function settle(one) {
  clearTimeout(one.timer);
  one.hide();
  waiting.delete(one);
}

function restore(itemId) {
  removed.delete(itemId);
  tell("restored", itemId);
}

async function commit(ids) {
  try {
    await (ids.length === 1 ? api.deleteItem(ids[0]) : api.deleteItems(ids));
    for (const itemId of ids) tell("deleted", itemId);
  } catch (error) {
    if (error.status === 404) return; // someone else deleted it
    ids.forEach(restore);
    toast(`Not deleted: ${error.message}`);
  }
}

// The requests outlive the page, so what was shown as deleted is deleted.
addEventListener("pagehide", () => [...waiting].forEach((one) => one.commit?.()));
