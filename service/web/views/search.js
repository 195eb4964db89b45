/** Asking with photos, and what comes back. */

import * as api from "../api.js";
import { getSubject } from "../api/subjects.js";
import { Answers } from "../answers.js";
import { byId } from "../dom.js";
import { fitted, sorted } from "../files.js";
import { clearFilters, filterFields, orderOf, queryForm, readFilters, startFilters } from "../filters.js";
import { count } from "../format.js";
import { pause } from "../http.js";
import { changes } from "../items.js";
import { address, go, here, rename } from "../router.js";
import { filesOf, keep, SubjectView } from "../subject.js";
import { search as words } from "../words.js";
import { searchRows } from "./rows.js";

const SECONDS_UNTIL_ASKED_AGAIN = 5;
const photos = byId("photos");
const progress = byId("search-progress");

/** @type {?import("../subject.js").Subject} */
let subject = null;
let leftOut = []; // files that were chosen and are not searched with
let subjectView;
let answers;
let running = new AbortController();
/**
 * Gets the subject and what of it is left out, where that is still to be sent or fetched.
 * @type {((signal: AbortSignal) => Promise<[?import("../subject.js").Subject, {name: string, reason: string}[]]>) | null}
 */
let find = null;
/** Counts what was dropped or chosen: the history has its number until the service keeps it, also that of earlier visits. */
let pending = Date.now();
let adds = false; // whether the file dialog adds to the subject

/** @type {import("../router.js").View} */
export const search = { name: "search", title: words.title, section: "search", start, show };

function start() {
  startFilters(askWithFilters);
  // Before the session is known, as a photo may be dropped by then.
  readFilters(here().view === "search" ? here().fields : new URLSearchParams());
  answers = new Answers(() => subject, () => {
    clearFilters();
    askWithFilters();
  });
  subjectView = new SubjectView(leaveOut, (message) => answers.complain(message), (boxes) => {
    go(addressOf({ ...subject, boxes: boxes.some(Boolean) ? boxes : undefined }));
    byId("results-title").focus();
  });
  byId("choose-photos").addEventListener("click", () => choose(false));
  byId("more-photos").addEventListener("click", () => choose(true));
  byId("clear-subject").addEventListener("click", () => go(addressOf(null)));
  byId("cancel-search").addEventListener("click", cancel);
  photos.addEventListener("change", async () => {
    const files = [...photos.files];
    photos.value = ""; // so that the same file can be chosen again
    if (adds) begin([...(await filesOf(subject)), ...files], sendTogether);
    else searchFiles(files);
  });
  changes.addEventListener("added", askAnew);
  answers.showNothingAsked();
}

/** Search with files, after asking whether several are of one subject. */
export function searchFiles(files) {
  if (files.length > 0) begin(files, files.length > 1 ? askWhetherOne : sendTogether);
}

/** Search with an enrolled item. */
export function searchItem(item) {
  go(addressOf({ item }));
}

/** Show the subject and the filters that the address names. */
async function show({ fields, state }) {
  if (state?.pending === pending) {
    if (subject !== null) rename(addressOf(subject), null); // which came while another view was shown
    return;
  }
  pending += 1; // what was dropped before is given up
  const before = filterFields().toString();
  readFilters(fields);
  byId("several").hidden = true;
  if (isNamed(fields) && before === filterFields().toString() && answers.areShown()) return;
  find = async () => {
    const next = isNamed(fields) ? subject : await namedSubject(fields);
    return [next, next === subject ? leftOut : []];
  };
  await ask();
}

/** Whether an address names the subject that is shown. */
function isNamed(fields) {
  const [itemId, subjectId] = [fields.get("item_id"), fields.get("subject_id")];
  const isSame = itemId === (subject?.item?.item_id ?? null) && (itemId !== null || subjectId === (subject?.kept?.subject_id ?? null));
  return isSame && String(boxesOf(fields)) === String(subject?.boxes ?? null);
}

/** The boxes that are meant, one for each photo; null where it is all of them. */
function boxesOf(fields) {
  const boxes = fields.getAll("box");
  return boxes.some((box) => box !== "") ? boxes : null;
}

async function namedSubject(fields) {
  const [itemId, subjectId, boxes] = [fields.get("item_id"), fields.get("subject_id"), boxesOf(fields) ?? undefined];
  if (itemId !== null) {
    return { item: await api.getItem(itemId).catch(() => ({ item_id: itemId })), boxes }; // asking says what is wrong with it
  }
  if (subjectId === null) return null;
  return { kept: await getSubject(subjectId).catch(() => ({ subject_id: subjectId, photos: [] })), boxes };
}

function addressOf(asked) {
  const fields = filterFields();
  if (asked?.item) fields.set("item_id", asked.item.item_id);
  if (asked?.kept) fields.set("subject_id", asked.kept.subject_id);
  for (const box of asked?.boxes ?? []) fields.append("box", box);
  return address("search", [], fields);
}

function take(next) {
  subject = next;
  subjectView.show(subject, leftOut);
}

function askWithFilters() {
  const fields = filterFields();
  for (const [name, value] of here().fields) {
    if (["item_id", "subject_id", "box"].includes(name)) fields.append(name, value); // of who may still be on the way
  }
  rename(address("search", [], fields));
  askAnew();
}

/** Ask again, unless the subject is on its way: then it is asked with what is set by then. */
function askAnew() {
  if (find === null) ask();
}

/** Start a search with files, at a place in the history of its own. */
function begin(files, proceed) {
  const { good, refused } = sorted(files);
  leftOut = refused;
  find = null;
  take(null);
  pending += 1;
  go(addressOf(null), { pending });
  ask();
  if (good.length > 0) proceed(good);
}

function askWhetherOne(files) {
  if (files.length === 1) {
    sendTogether(files);
    return;
  }
  byId("several").hidden = false;
  byId("several-question").textContent = words.several(count(files.length, "photo"));
  byId("one-subject").onclick = () => sendTogether(files);
  byId("one-row-each").onclick = () => searchRows(files);
  byId("one-subject").focus();
}

/** Have the service keep files of one subject, and search with them. */
async function sendTogether(chosen) {
  byId("several").hidden = true;
  const { good: files, refused } = fitted(chosen);
  leftOut = [...leftOut, ...refused];
  const sent = count(files.length, "photo");
  find = async (signal) => {
    const tell = (share) => showProgress(words.sending(sent, Math.round(100 * share)), share);
    tell(0); // a browser tells nothing until it is connected
    const kept = await keep(files, { signal, progress: tell });
    return [{ kept }, [...leftOut, ...kept.refused.map(({ filename, error }) => ({ name: filename, reason: error.detail }))]];
  };
  await ask();
}

async function leaveOut(place) {
  const files = await filesOf(subject);
  begin(files.filter((_, number) => number !== place), sendTogether);
}

/** Ask, once the subject is there; an answer that is still under way is not waited for. */
async function ask() {
  await work(async (signal) => {
    if (find !== null) {
      const [found, left] = await find(signal);
      signal.throwIfAborted(); // something else is shown by now
      find = null;
      leftOut = left;
      take(found);
      const { view, state } = here();
      if (view === "search" && state?.pending === pending) rename(addressOf(subject), null);
    }
    if (subject === null) answers.showNothingAsked();
    else await answer(signal);
  });
}

async function answer(signal) {
  showProgress(words.searching);
  const form = queryForm();
  if (subject.item) form.set("item_id", subject.item.item_id);
  else form.set("subject_id", subject.kept.subject_id);
  for (const box of subject.boxes ?? []) form.append("box", box);
  answers.show(await api.query(form, signal), orderOf());
}

/** Do what may take a while and be cancelled; where the service cannot be reached, again until it can. */
async function work(attempt) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  try {
    for (;;) {
      try {
        await attempt(signal);
        break;
      } catch (error) {
        if (error.code !== "unreachable") throw error;
        answers.tell(words.outage, "refused");
        await pause(SECONDS_UNTIL_ASKED_AGAIN, signal);
      }
    }
  } catch (error) {
    if (signal.aborted) return; // what came instead tells of itself
    answers.complain(error.message);
  }
  if (!signal.aborted) stopProgress();
}

function showProgress(text, share = null) {
  progress.hidden = false;
  byId("search-doing").textContent = text;
  const bar = byId("search-bar");
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
  byId("results").setAttribute("aria-busy", "true");
}

function stopProgress() {
  progress.hidden = true;
  byId("results").removeAttribute("aria-busy");
}

function cancel() {
  running.abort();
  stopProgress();
  answers.offerAgain(ask);
}

function choose(more) {
  adds = more;
  photos.click();
}
