/** Whether files that were chosen belong to an import that is open already. */

import * as api from "../api/imports.js";
import { element } from "../dom.js";
import { pathOf } from "../files.js";
import { count } from "../format.js";
import { imports as words } from "../words.js";
import { known } from "./watching.js";

/**
 * The import to send files into: an open one that has some of them and that the user goes on with, "" for a new one,
 * null for none at all.
 * @returns {Promise<?string>}
 */
export async function openOneFor(files) {
  const chosen = new Set(files.map((file) => `${file.size} ${pathOf(file)}`));
  for (const one of known().filter(({ state, files: there }) => state === "receiving" && there > 0)) {
    const there = await api.files(one.import_id);
    const same = there.filter(({ name, size }) => chosen.has(`${size} ${name}`)).length;
    if (same > 0) return ask(one, same);
  }
  return "";
}

/** @returns {Promise<?string>} as `openOneFor` */
function ask(one, same) {
  const name = one.settings.name || words.noName;
  const dialog = /** @type {HTMLDialogElement} */ (element(
    "dialog",
    { class: "preview", "aria-labelledby": "same-title" },
    element("h2", { id: "same-title" }, words.openTitle(name)),
    element("p", {}, words.openText(count(same, "file"))),
    element(
      "form",
      { method: "dialog", class: "row" },
      element("button", { class: "primary", value: one.import_id }, words.goOn),
      element("button", { value: "new" }, words.another),
      element("button", { value: "" }, words.giveUp),
    ),
  ));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "" ? null : dialog.returnValue === "new" ? "" : dialog.returnValue);
    });
  });
}
