/** Which view is shown, and the links to the others. */

import { byId, element } from "./dom.js";
import { address, goBackTo, here, HOME, opensElsewhere, startRouter } from "./router.js";
import { may } from "./session.js";
import { toast } from "./toasts.js";
import { closeViewer } from "./viewer.js";
import { views } from "./views.js";
import { page as words } from "./words.js";

const SHOWN_BEFORE = 90; // pixels of the row of links, left of the one of this view

let shown = null;

/** Make and start the views, and show the one of the address, though not yet what is in it. */
export function startViews() {
  for (const view of views) view.start(containerOf(view));
  startRouter(showPlace);
  byId("views").addEventListener("click", followLink);
  reveal(viewAt(here()) ?? views.find((view) => view.name === HOME));
}

/** The name of the view that is shown. */
export function currentView() {
  return shown.name;
}

/** Link the views that the key may see, section by section. */
export function drawLinks() {
  const groups = Object.entries(words.sections).map(([section, label]) => {
    const links = views
      .filter((view) => view.section === section && (!view.scope || may(view.scope)))
      .map((view) => element("a", { href: address(view.name), "data-view": view.name }, view.title));
    return links.length > 0 ? element("div", { role: "group", "aria-label": label }, ...links) : null;
  });
  byId("views").replaceChildren(...groups.filter((group) => group !== null));
  markLinks();
}

/** Show a place; one that does not exist leads home, with a word why. */
export function showPlace(place) {
  closeViewer();
  let view = viewAt(place);
  if (view?.scope && !may(view.scope)) {
    toast(words.notAllowed(view.scope));
    view = null;
  } else if (!view) {
    toast(words.noView(place.view));
  }
  reveal(view ?? views.find((one) => one.name === HOME));
  markLinks();
  shown.show(view ? place : { ...place, view: HOME, parts: [], fields: new URLSearchParams() });
}

/** From another view, a link leads to where its own was left. */
function followLink(event) {
  const name = event.target.dataset.view;
  if (!name || name === shown.name || opensElsewhere(event)) return;
  event.preventDefault();
  goBackTo(name);
}

function viewAt(place) {
  return views.find((view) => view.name === place.view);
}

function containerOf(view) {
  const id = `${view.name}-view`;
  const found = byId(id);
  if (found) return found;
  const made = element("section", { id, "aria-label": view.title, hidden: true });
  document.querySelector("main").append(made);
  return made;
}

function reveal(view) {
  if (view === shown) return;
  shown?.hide?.();
  shown = view;
  for (const one of views) byId(`${one.name}-view`).hidden = one !== view;
  document.title = `${view.title} · ${words.title}`;
}

function markLinks() {
  for (const link of byId("views").querySelectorAll("a")) {
    if (link.dataset.view === shown.name) {
      link.setAttribute("aria-current", "page");
      // On a phone the links are one row, wider than the window.
      byId("views").scrollTo({ left: link.offsetLeft - byId("views").offsetLeft - SHOWN_BEFORE });
    } else {
      link.removeAttribute("aria-current");
    }
  }
}
