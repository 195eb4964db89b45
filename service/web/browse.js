/** All enrolled photos, in the order of their enrolment, a page at a time. */

import { listItems } from "./api.js";
import { Cards } from "./cards.js";
import { byId } from "./dom.js";
import { changes } from "./items.js";
import { view } from "./viewer.js";

const PAGE = 60;
const cards = new Cards(byId("enrolled"), view);
const more = byId("more-items");
const facts = byId("browse-facts");

let cursor = 0; // null after the last page
let stale = true;

/** Start the view. */
export function startBrowsing() {
  more.addEventListener("click", showMore);
  changes.addEventListener("added", () => {
    stale = true;
  });
}

/** Show the first page, if the view was not shown since photos were added. */
export async function showEnrolled() {
  if (!stale) return;
  stale = false;
  cursor = 0;
  cards.show([]);
  await showMore();
}

async function showMore() {
  try {
    const page = await listItems(PAGE, cursor);
    cards.append(page.items);
    cursor = page.next_cursor;
    more.hidden = cursor === null;
    facts.textContent = cards.items.length === 0 ? "The gallery is empty. Add photos first." : "";
  } catch (error) {
    stale = true;
    facts.textContent = error.message;
  }
}
