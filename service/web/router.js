/** Addresses within the page: `#/VIEW/PART?FIELDS`, the same below whatever path the service is seen at. */

/**
 * Where the page is.
 * @typedef {{view: string, parts: string[], fields: URLSearchParams, state: any}} Place
 *
 * What a view is: `section` groups its link in the navigation (null: it has none), `scope` is what a key must have.
 * `start` is called once with the element that is the view's own, `show` whenever an address of it is reached, `hide`
 * when another view takes its place.
 * @typedef {{
 *   name: string, title: string, section: ?string, scope?: string,
 *   start: (container: HTMLElement) => void, show: (place: Place) => void, hide?: () => void,
 * }} View
 */

const OLD_VIEWS = ["search", "add", "browse"]; // of addresses that people keep: `?cameras=north#search`
const MOVED = { add: "imports" };
export const HOME = "home";

let follow = (_place) => {};

/** The last address of each view in this visit. */
const last = new Map();

/** The address of a place, for `href` and `go`. */
export function address(view, parts = [], fields = new URLSearchParams()) {
  const path = [view, ...parts].map(encodeURIComponent).join("/");
  return fields.size > 0 ? `#/${path}?${fields}` : `#/${path}`;
}

/** Where the page is now. @returns {Place} */
export function here() {
  const [path, fields = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [view, ...parts] = path.split("/").map(decoded);
  return { view: MOVED[view] ?? (view || HOME), parts, fields: new URLSearchParams(fields), state: history.state };
}

/** Go to an address, as by a link; `state` is found again by Back. */
export function go(to, state = null) {
  history.pushState(state, "", to);
  arrive();
}

/** Go to where a view was last, or to its plain address. */
export function goBackTo(view) {
  const { to, state } = last.get(view) ?? { to: address(view), state: null };
  go(to, state);
}

/** Give the place that is shown another address, to which nothing has to be shown anew. */
export function rename(to, state = history.state) {
  history.replaceState(state, "", to);
  note();
}

/** Have `shown` called with every place from now on, and links followed without a request. */
export function startRouter(shown) {
  follow = shown;
  translateOld();
  addEventListener("popstate", () => {
    translateOld();
    arrive();
  });
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest('a[href^="#"]') : null;
    if (!link || event.defaultPrevented || opensElsewhere(event)) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
}

/** Whether a click asks for another tab or window. */
export function opensElsewhere(event) {
  return event.ctrlKey || event.metaKey || event.shiftKey;
}

function arrive() {
  note();
  follow(here());
}

function note() {
  last.set(here().view, { to: location.hash, state: history.state });
}

function translateOld() {
  const name = location.hash.slice(1);
  if (!location.search && !OLD_VIEWS.includes(name)) return;
  const view = OLD_VIEWS.includes(name) ? (MOVED[name] ?? name) : "search";
  const fields = view === "search" ? new URLSearchParams(location.search) : undefined;
  history.replaceState(history.state, "", location.pathname + address(view, [], fields));
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a lone % that somebody typed
  }
}
