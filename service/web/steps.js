/** Steps that change whom photos show: seen before they are done, and taken back afterwards. */

import { identity } from "./api/identities.js";
import { undo } from "./api/review.js";
import { element } from "./dom.js";
import { toast } from "./toasts.js";
import { steps as words } from "./words.js";

const SECONDS = 20; // for which a step can be taken back by its message

/** Emits "done" after each step that changed something. */
export const done = new EventTarget();

/**
 * Ask whether a step shall be done, by what it would do, and do it; resolves to what it did, or to null.
 * @param {string} title
 * @param {(dryRun: boolean) => Promise<any>} run does the step, or with `true` tells what it would do
 * @param {Object<string, string>} known names of individuals by their ids
 */
export async function propose(title, run, known = {}) {
  try {
    const preview = await run(true);
    if (!(await confirmed(title, await accountOf(preview, known)))) return null;
    return tell(title, await run(false));
  } catch (error) {
    refuse(title, error);
    return null;
  }
}

/** Do a step without asking, for one that is small and easily taken back; resolves as `propose`. */
export async function perform(title, run) {
  try {
    return tell(title, await run());
  } catch (error) {
    refuse(title, error);
    return null;
  }
}

/** Say why a step was not done; of one that may have been, all who show what it changes look again. */
function refuse(title, error) {
  toast(error.status === 0 ? words.unsure(title, error.message) : error.message, null, SECONDS);
  if (error.status === 0) done.dispatchEvent(new Event("done"));
}

function tell(title, step) {
  const conflicts = step.conflicts.length > 0 ? ` ${words.conflicts(step.conflicts.length)}` : "";
  const takeAway = toast(words.done(title) + conflicts, step.batch_id ? { name: words.undo, run: takeBack } : null, SECONDS);
  async function takeBack() {
    takeAway();
    try {
      await undo(step.batch_id);
      toast(words.undone(title));
    } catch (error) {
      toast(error.message);
    }
    done.dispatchEvent(new Event("done"));
  }
  done.dispatchEvent(new Event("done"));
  return step;
}

/** What a step would do, in sentences. */
async function accountOf(step, known) {
  const names = new Map(Object.entries(known));
  const there = step.moved.map((one) => one.former).filter((id) => id !== null);
  for (const id of new Set([...there, ...step.similar])) names.set(id, (await identity(id)).name ?? words.someone);
  const name = (id) => (id === null ? words.nobody : (names.get(id) ?? words.another)); // which may be yet to be made
  const moved = step.moved.map((one) => words.moved(one.items, name(one.former), name(one.identity_id)));
  return [
    ...(moved.length > 0 ? moved : [words.nothingMoves]),
    ...(step.conflicts.length > 0 ? [words.conflicts(step.conflicts.length)] : []),
    ...step.similar.map((id) => words.similar(names.get(id))),
  ];
}

function confirmed(title, lines) {
  const dialog = /** @type {HTMLDialogElement} */ (element(
    "dialog",
    { class: "preview", "aria-labelledby": "preview-title" },
    element("h2", { id: "preview-title" }, title),
    element("ul", {}, ...lines.map((line) => element("li", {}, line))),
    element(
      "form",
      { method: "dialog", class: "row" },
      element("button", { class: "primary", value: "yes" }, words.confirm),
      element("button", { value: "no" }, words.cancel),
    ),
  ));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}
