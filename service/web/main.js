/** The page: its views, what is dropped and pasted on it, and its keys. */

import * as api from "./api.js";
import { showEnrolled, startBrowsing } from "./browse.js";
import { byId, filesOf, isTyping } from "./dom.js";
import { enrolFiles, showWhetherMayAdd, startEnrolment } from "./enrol.js";
import { count } from "./format.js";
import { changes, undoLast } from "./items.js";
import { refreshNames } from "./names.js";
import { restoreSearch, searchFiles, searchItem, startSearch } from "./search.js";
import { startSession } from "./session.js";
import { toast } from "./toasts.js";
import { startViewer } from "./viewer.js";

const VIEWS = ["search", "add", "browse"];
const SECONDS_UNTIL_ASKED_AGAIN = 5;

function currentView() {
  const named = location.hash.slice(1);
  return VIEWS.includes(named) ? named : "search";
}

function showView() {
  const current = currentView();
  for (const name of VIEWS) {
    byId(`${name}-view`).hidden = name !== current;
    const link = document.querySelector(`nav a[href="#${name}"]`);
    if (name === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (current === "browse") showEnrolled();
}

/** Follow a link to a view without forgetting which subject is asked about. */
function followLink(event) {
  const link = event.target.closest('a[href^="#"]');
  if (!link) return;
  event.preventDefault();
  history.pushState(history.state, "", link.getAttribute("href"));
  showView();
}

function search(item) {
  searchItem(item);
  showView();
  scrollTo(0, 0);
  byId("results-title").focus();
}

async function takeFiles(event, transfer) {
  if (![...transfer.items].some((item) => item.kind === "file") || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  const files = await filesOf(transfer);
  if (currentView() === "add") {
    await enrolFiles(files);
    return;
  }
  searchFiles(files);
  showView();
}

function pressKey(event) {
  if (isTyping(event.target) || document.querySelector("dialog[open]") || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key === "z") undoLast();
  } else if (event.key === "/") {
    event.preventDefault();
    history.pushState(history.state, "", "#search");
    showView();
    byId("choose-photos").focus();
  } else if (event.key === "?") {
    byId("help").showModal();
  }
}

function startGestures() {
  document.addEventListener("click", followLink);
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
  byId("show-help").addEventListener("click", () => byId("help").showModal());
}

/** Say how many photos there are, or why nothing is answered; then ask again until it is. */
async function showReadiness() {
  const problem = byId("not-ready");
  try {
    const { items, trained_on: trainedOn } = await api.ready();
    byId("toy").hidden = trainedOn !== "toy";
    byId("gallery-state").textContent = items === 0 ? "The gallery is empty" : count(items, "photo");
    problem.hidden = true;
  } catch (error) {
    problem.textContent = `Not ready: ${error.message}`;
    problem.hidden = false;
    setTimeout(showReadiness, 1000 * SECONDS_UNTIL_ASKED_AGAIN);
  }
}

async function start() {
  startGestures();
  startViewer(search);
  startBrowsing();
  startEnrolment();
  startSearch();
  showView();
  showReadiness();
  try {
    await startSession();
  } catch (error) {
    toast(error.message, { name: "Try again", run: () => location.reload() }, null);
  }
  showWhetherMayAdd();
  restoreSearch();
  addEventListener("popstate", () => {
    showView();
    restoreSearch();
  });
  for (const type of ["added", "deleted"]) changes.addEventListener(type, showReadiness);
  refreshNames().catch((error) => toast(error.message));
}

start();
