/** The page: what is dropped and pasted on it, and its keys. */

import * as api from "./api.js";
import { byId, filesOf, isTyping } from "./dom.js";
import { count } from "./format.js";
import { writes } from "./http.js";
import { takeFiles as importFiles } from "./imports/taking.js";
import { startWatching } from "./imports/watching.js";
import { changes, undoLast } from "./items.js";
import { refreshNames } from "./names.js";
import { currentView, drawLinks, showPlace, startViews } from "./navigation.js";
import { goBackTo, here } from "./router.js";
import { startSession } from "./session.js";
import { toast } from "./toasts.js";
import { startViewer } from "./viewer.js";
import { searchFiles, searchItem } from "./views/search.js";

const SECONDS_UNTIL_ASKED_AGAIN = 5;
const SETTLED_MS = 300; // after the last of several changes
const COUNTED = /^\/v1\/(items|identities|decisions|subjects\/[^/]+\/items)/; // what changes how many there are of something

function searchFrom(item) {
  searchItem(item);
  scrollTo(0, 0);
  byId("results-title").focus();
}

async function takeFiles(event, transfer) {
  if (![...transfer.items].some((item) => item.kind === "file") || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  const files = await filesOf(transfer);
  if (currentView() === "imports") {
    await importFiles(files);
    return;
  }
  searchFiles(files);
}

function pressKey(event) {
  if (isTyping(event.target) || document.querySelector("dialog[open]") || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key === "z") undoLast();
  } else if (currentView() === "compare") {
    return; // it has keys of its own
  } else if (event.key === "/") {
    event.preventDefault();
    if (currentView() !== "search") goBackTo("search");
    byId("choose-photos").focus();
  } else if (event.key === "?") {
    byId("help").showModal();
  }
}

function startGestures() {
  document.addEventListener("keydown", pressKey);
  document.addEventListener("paste", (event) => takeFiles(event, event.clipboardData));
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // or the browser would leave the page for the file
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    takeFiles(event, event.dataTransfer);
  });
  byId("skip").addEventListener("click", () => {
    const heading = byId(currentView() === "search" ? "results-title" : `${currentView()}-view`);
    heading.tabIndex = -1;
    heading.focus();
  });
  byId("show-help").addEventListener("click", () => byId("help").showModal());
}

let askAgain = null;

/** Say how many photos there are, or why nothing is answered; then ask again until it is. */
async function showReadiness() {
  clearTimeout(askAgain);
  const problem = byId("not-ready");
  try {
    const { items, trained_on: trainedOn } = await api.ready();
    byId("toy").hidden = trainedOn !== "toy";
    // Nothing of either is told before somebody signed in.
    byId("gallery-state").textContent = items === null ? "" : items === 0 ? "The gallery is empty" : count(items, "photo");
    problem.hidden = true;
  } catch (error) {
    problem.textContent = `Not ready: ${error.message}`;
    problem.hidden = false;
    askAgain = setTimeout(showReadiness, 1000 * SECONDS_UNTIL_ASKED_AGAIN);
  }
}

let settling;

/** After whatever this page changed: how many photos there are, and how many of each name. */
function countAnew({ detail: path }) {
  if (!COUNTED.test(path)) return;
  clearTimeout(settling);
  settling = setTimeout(() => {
    showReadiness();
    refreshNames().catch(() => {}); // an outage, which the line above tells
  }, SETTLED_MS);
}

async function start() {
  startGestures();
  startViewer(searchFrom);
  startViews();
  showReadiness();
  try {
    await startSession();
  } catch (error) {
    toast(error.message, { name: "Try again", run: () => location.reload() }, null);
  }
  drawLinks();
  showReadiness();
  showPlace(here());
  changes.addEventListener("added", showReadiness); // also of what the service does by itself
  writes.addEventListener("written", countAnew);
  addEventListener("focus", showReadiness); // others may have changed something meanwhile
  startWatching();
  refreshNames().catch((error) => toast(error.message));
}

start();
