/** Asking with photos, and what comes back. */

import * as api from "./api.js";
import { Cards } from "./cards.js";
import { byId, element } from "./dom.js";
import { clearFilters, filterFields, queryForm, readFilters, startFilters } from "./filters.js";
import { count, verdict, ZONE } from "./format.js";
import { changes } from "./items.js";
import { SubjectView } from "./subject.js";
import { view } from "./viewer.js";

const results = new Cards(byId("results"), (cards, item) => view(cards, item, subjectView.firstUrl()));
const photos = byId("photos");
const subjects = new Map(); // of this visit; the history of the browser keeps their keys

/** @type {?import("./subject.js").Subject} */
let subject = null;
let subjectView;
let running = new AbortController();
let adds = false; // whether the file dialog adds to the subject

/** Start the view. */
export function startSearch() {
  startFilters(() => {
    writeAddress("replaceState");
    ask();
  });
  subjectView = new SubjectView((file) => searchFiles(subject.files.filter((other) => other !== file)), complain);
  byId("choose-photos").addEventListener("click", () => choose(false));
  byId("more-photos").addEventListener("click", () => choose(true));
  byId("clear-subject").addEventListener("click", () => setSubject(null));
  photos.addEventListener("change", () => {
    const files = [...photos.files];
    photos.value = ""; // so that the same file can be chosen again
    searchFiles(adds ? [...subject.files, ...files] : files);
  });
  changes.addEventListener("added", () => ask());
  showNothingAsked();
}

/** Search with files of one subject. */
export function searchFiles(files) {
  if (files.length > 0) setSubject({ files, item: null });
}

/** Search with an enrolled item. */
export function searchItem(item) {
  setSubject({ files: [], item });
}

/** Show the subject and the filters that the address, or the history of this visit, names. */
export async function restoreSearch() {
  const fields = new URLSearchParams(location.search);
  const before = filterFields().toString();
  readFilters(fields);
  const next = subjects.get(history.state?.subject) ?? (await namedSubject(fields.get("item_id")));
  if (next === subject && before === filterFields().toString() && results.items.length > 0) return;
  subject = next;
  subjectView.show(subject);
  await ask();
}

async function namedSubject(itemId) {
  if (itemId === null) return null;
  try {
    return { files: [], item: await api.getItem(itemId) };
  } catch {
    return { files: [], item: { item_id: itemId } }; // asking says what is wrong with it
  }
}

function setSubject(next) {
  subject = next;
  const key = `${performance.timeOrigin} ${subjects.size}`; // the history outlives a visit
  subjects.set(key, next);
  writeAddress("pushState", { subject: key });
  subjectView.show(subject);
  ask();
}

function writeAddress(how, state = history.state) {
  const fields = filterFields();
  if (subject?.item) fields.set("item_id", subject.item.item_id);
  const search = fields.size > 0 ? `?${fields}` : location.pathname;
  history[how](state, "", `${search}#search`);
}

function choose(more) {
  adds = more;
  photos.click();
}

/** Ask again; an answer that is still under way is not waited for. */
async function ask() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  if (subject === null) {
    showNothingAsked();
    return;
  }
  const form = queryForm();
  if (subject.item) form.set("item_id", subject.item.item_id);
  for (const file of subject.files) form.append("image", file, file.name);
  byId("results").setAttribute("aria-busy", "true");
  try {
    showAnswer(await api.query(form, signal));
  } catch (error) {
    if (error.name === "AbortError") return;
    complain(error.message);
  }
  byId("results").removeAttribute("aria-busy");
}

function tell(verdictText, kind, facts) {
  const shown = byId("verdict");
  shown.textContent = verdictText;
  shown.className = kind;
  byId("answer-facts").textContent = facts;
}

function complain(message) {
  results.show([]);
  tell(message, "refused", "");
  byId("answer-empty").replaceChildren();
}

function showAnswer(answer) {
  results.show(answer.matches);
  const searched = `${count(answer.candidates, "photo")} searched in ${Math.ceil(answer.took_ms)} ms`;
  const found = count(answer.matches.length, "match", "matches");
  const timed = answer.matches.some((match) => match.captured_at) ? ` Times are in ${ZONE}.` : "";
  const uncalibrated = answer.matches.length > 0 && answer.matches[0].probability === null;
  const meant = uncalibrated ? " Scores are cosine similarities, not probabilities." : "";
  tell(verdict(answer), answer.verdict ?? "", `${found}. ${searched}.${timed}${meant}`);
  byId("answer-empty").replaceChildren(...(answer.matches.length > 0 ? [] : noMatch(answer)));
}

function noMatch(answer) {
  const clear = element("button", { type: "button" }, "Clear filters");
  clear.addEventListener("click", () => {
    clearFilters();
    writeAddress("replaceState");
    ask();
  });
  if (answer.candidates > 0) {
    const searched = count(answer.candidates, "photo");
    return [element("p", {}, `None of ${searched} reaches the minimum score. Lower it to see the nearest.`), clear];
  }
  const filtered = Object.values(answer.filter).some((value) => value !== null);
  if (filtered) return [element("p", {}, "No photo passes the filters."), clear];
  const add = element("a", { href: "#add" }, "Add photos");
  return [element("p", {}, "The gallery is empty, so there is nothing to find. ", add, " first.")];
}

function showNothingAsked() {
  results.show([]);
  tell("", "", "");
  byId("answer-empty").replaceChildren(
    element("p", {}, "Drop, paste or choose a photo, and the most similar photos of the gallery appear here."),
  );
}
