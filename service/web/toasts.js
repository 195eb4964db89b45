/** Short messages at the edge of the page. */

import { byId, element } from "./dom.js";

const SECONDS = 6;
const toasts = byId("toasts");

// A dialog lies above all else, and nothing outside of it can be reached: messages are in the one that is open.
const dialogs = new MutationObserver(() => {
  const place = [...document.querySelectorAll("dialog:modal")].at(-1) ?? document.body;
  if (toasts.parentElement !== place) place.append(toasts);
});
dialogs.observe(document.documentElement, { subtree: true, attributeFilter: ["open"] });
dialogs.observe(document.body, { childList: true }); // of those that are made and taken away

/**
 * Show a message, with a button if there is something to do about it; gives the function that takes it away.
 * @param {string} text
 * @param {?{name: string, run: () => void}} action
 * @param {?number} seconds how long it stays; null until it is taken away
 */
export function toast(text, action = null, seconds = SECONDS) {
  const button = action && element("button", { type: "button", onclick: action.run }, action.name);
  const shown = element("p", {}, text, button);
  toasts.append(shown);
  if (seconds !== null) setTimeout(() => shown.remove(), 1000 * seconds);
  return () => shown.remove();
}
