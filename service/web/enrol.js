/** Adding photos: portion by portion, with a result for every file. */

import * as api from "./api.js";
import { byId, element } from "./dom.js";
import { count, integer, toApiTime } from "./format.js";
import { tellAdded } from "./items.js";
import { refreshNames } from "./names.js";
import { may } from "./session.js";
import { toast } from "./toasts.js";

const MOST_FILES = 32;
const MOST_BYTES = 60 * 2 ** 20; // of 64 MiB; the rest is for what surrounds the files
const form = byId("add-form");
const bar = byId("add-bar");

let running = false;
let stopped = false;
let counts;

/** Start the view. */
export function startEnrolment() {
  for (const [button, input] of [["choose-files", "files"], ["choose-folder", "folder"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", (event) => {
      const files = [...event.target.files];
      event.target.value = "";
      enrolFiles(files);
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("stop-adding").addEventListener("click", () => {
    stopped = true;
    byId("add-summary").textContent = "Stopping after the photos that are under way.";
  });
  addEventListener("beforeunload", (event) => {
    if (running) event.preventDefault();
  });
}

/** Say so where the key does not allow it. */
export function showWhetherMayAdd() {
  form.hidden = !may("write");
  byId("add-forbidden").hidden = may("write");
}

/** Add files, with what the form says of all of them. */
export async function enrolFiles(files) {
  if (files.length === 0) return;
  if (running) {
    toast("Photos are being added. Wait for them, or stop that first.");
    return;
  }
  begin(files.length);
  const said = details();
  for (const portion of portions(files)) {
    if (stopped) break;
    await send(portion, said);
  }
  end(files.length);
  if (counts.created > 0) {
    tellAdded();
    await refreshNames();
  }
}

function details() {
  const { camera, label, captured_at: time } = form.elements;
  return {
    camera: camera.value.trim() || null,
    label: label.value.trim() || null,
    captured_at: toApiTime(time.value),
  };
}

/** Split files into lists that one request may bring. */
function* portions(files) {
  let portion = [];
  let bytes = 0;
  for (const file of files) {
    if (portion.length === MOST_FILES || (portion.length > 0 && bytes + file.size > MOST_BYTES)) {
      yield portion;
      portion = [];
      bytes = 0;
    }
    portion.push(file);
    bytes += file.size;
  }
  yield portion;
}

/** Send files in one request; where they are too many or too large for that, each half in its own. */
async function send(files, said) {
  const body = new FormData();
  for (const file of files) body.append("images", file, file.name);
  body.append("metadata", JSON.stringify(files.map(() => said)));
  try {
    const { results } = await api.enrol(body);
    for (const { index, result, error } of results) settle(files[index], result, error?.detail);
  } catch (error) {
    if ([400, 413].includes(error.status) && files.length > 1) {
      const middle = Math.ceil(files.length / 2);
      await send(files.slice(0, middle), said);
      await send(files.slice(middle), said);
      return;
    }
    for (const file of files) settle(file, "error", error.message);
    if ([0, 401, 403].includes(error.status)) stopped = true; // the next would fare no better
  }
}

function begin(total) {
  running = true;
  stopped = false;
  counts = { created: 0, existing: 0, error: 0 };
  bar.max = total;
  bar.value = 0;
  byId("add-progress").hidden = false;
  byId("add-refused").hidden = true;
  byId("add-kept").hidden = true;
  for (const id of ["add-refused", "add-kept"]) byId(id).querySelector("ul").replaceChildren();
  byId("add-summary").textContent = `Adding ${count(total, "photo")}.`;
}

function settle(file, result, reason) {
  counts[result] += 1;
  bar.value += 1;
  const place = byId(result === "error" ? "add-refused" : "add-kept");
  const said = { created: "added", existing: "was there already and is left as it is", error: reason };
  const name = file.webkitRelativePath || file.name;
  place.querySelector("ul").append(element("li", {}, element("b", {}, name), " ", element("span", {}, said[result])));
  place.hidden = false;
  byId("add-summary").textContent = summary();
}

function summary() {
  const parts = [`${integer(counts.created)} added`];
  if (counts.existing > 0) parts.push(`${integer(counts.existing)} there already`);
  if (counts.error > 0) parts.push(`${integer(counts.error)} refused`);
  return `${parts.join(", ")}.`;
}

function end(total) {
  running = false;
  byId("add-progress").hidden = true;
  const unsent = total - bar.value;
  byId("add-summary").textContent = unsent > 0 ? `${summary()} Stopped: ${integer(unsent)} not sent.` : summary();
}
