/** Files that were chosen or dropped, on their way into an import; with the inputs and what was said beside them. */

import * as api from "../api/imports.js";
import { byId } from "../dom.js";
import { importable, pathOf } from "../files.js";
import { count, toApiTime } from "../format.js";
import { address, go, here } from "../router.js";
import { may } from "../session.js";
import { toast } from "../toasts.js";
import { html } from "../vendor/preact.js";
import { imports as words } from "../words.js";
import { openOneFor } from "./asking.js";
import { plain } from "./saying.js";
import { send } from "./sending.js";
import { known, look } from "./watching.js";

/** Take files that were chosen or dropped: into the import that is shown and waits for some, or into a new one. */
export async function takeFiles(files) {
  if (files.length === 0) return;
  if (!may("write")) {
    toast(words.mayNot);
    return;
  }
  const byPath = (one, other) => (pathOf(one) < pathOf(other) ? -1 : 1); // a browser gives folders in any order
  const { good, refused } = importable([...files].sort(byPath));
  const [open] = here().parts;
  try {
    const waits = open && known().find((one) => one.import_id === open)?.state === "receiving";
    if (good.length === 0) {
      for (const { name, reason } of refused) toast(`${name}: ${reason}`);
      return;
    }
    const there = waits ? open : await openOneFor(good);
    if (there === null) return;
    const importId = there || (await api.createImport(settings(good))).import_id;
    if (!waits) go(address("imports", [importId]));
    look();
    if (!(await send(importId, good, refused))) return;
    await startIfClear(importId);
  } catch (error) {
    toast(plain(error.message), null, null);
  }
  await look();
}

/** Start an import of which nothing is to be asked: nobody has to press a button for some photos. */
async function startIfClear(importId) {
  const seen = await api.preview(importId).catch(() => null); // shown where it is looked at again
  const { files, files_received: came } = await api.getImport(importId);
  if (!seen || came < files || seen.needs.length > 0 || seen.problems.length > 0 || seen.unusable.length > 0) return;
  if (seen.table !== null || seen.zoneless > 0 || seen.changed > 0 || seen.photos === 0) return;
  await api.startImport(importId).catch((error) => toast(error.message));
}

function settings(files) {
  const form = /** @type {HTMLFormElement} */ (document.querySelector("#imports-view form.said"));
  const said = new FormData(form ?? undefined);
  const text = (name) => String(said.get(name) ?? "").trim() || null;
  return {
    name: nameOf(files),
    camera_from: text("camera_from"),
    said: { camera: text("camera"), label: text("label"), site: text("site"), captured_at: toApiTime(text("captured_at")) },
  };
}

/** What an import is called: by its folder or table, else by how many files it has. */
function nameOf(files) {
  const folders = new Set(files.map((file) => pathOf(file).split("/").slice(0, -1)[0]).filter((one) => one));
  const own = files.find((file) => /\.(zip|csv|tsv)$/i.test(file.name))?.name;
  const name = folders.size === 1 ? [...folders][0] : (own ?? count(files.length, "photo"));
  return name.slice(0, 200);
}

/** Have the browser ask for files, or for a folder. */
export function choose(folder) {
  byId(folder ? "import-folder" : "import-files").click();
}

/** The inputs that the buttons press. */
export function Inputs() {
  const taken = (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    takeFiles(files);
  };
  return html`
    <input type="file" id="import-files" multiple hidden aria-label=${words.chooseFiles} onChange=${taken} />
    <input type="file" id="import-folder" multiple hidden webkitdirectory aria-label=${words.chooseFolder} onChange=${taken} />
  `;
}
