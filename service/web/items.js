/** Changes to enrolled photos, told to every list on the page by events of `changes`. */

import * as api from "./api.js";
import { toast } from "./toasts.js";

const SECONDS_TO_UNDO = 8;

/** Events `edited` (detail: the item), `removed` and `restored` (detail: its id), and `added`. */
export const changes = new EventTarget();

/** Deletes that can still be taken back, oldest first: the id of an item to how to undo and how to do it. */
const waiting = new Map();
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

/** Say that photos were enrolled. */
export function tellAdded() {
  tell("added", null);
}

/** Delete an item, once the time to take that back has passed. */
export function removeItem(item) {
  const itemId = item.item_id;
  if (removed.has(itemId)) return;
  removed.add(itemId);
  tell("removed", itemId);
  const undo = () => {
    settle(itemId);
    restore(itemId);
  };
  const hide = toast(`Deleted ${item.label ?? "a photo"}.`, { name: "Undo", run: undo }, null);
  const timer = setTimeout(() => commit(itemId), 1000 * SECONDS_TO_UNDO);
  waiting.set(itemId, { undo, hide, timer });
}

/** Take back the last delete that can be. */
export function undoLast() {
  [...waiting.values()].at(-1)?.undo();
}

function settle(itemId) {
  const { hide, timer } = waiting.get(itemId);
  clearTimeout(timer);
  hide();
  waiting.delete(itemId);
}

function restore(itemId) {
  removed.delete(itemId);
  tell("restored", itemId);
}

async function commit(itemId) {
  settle(itemId);
  try {
    await api.deleteItem(itemId);
    tell("deleted", itemId);
  } catch (error) {
    if (error.status === 404) return; // someone else deleted it
    restore(itemId);
    toast(`Not deleted: ${error.message}`);
  }
}

// The requests outlive the page, so what was shown as deleted is deleted.
addEventListener("pagehide", () => [...waiting.keys()].forEach(commit));
