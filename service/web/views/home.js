/** What there is, what waits, and what to do first where there is nothing. */

import * as api from "../api.js";
import * as naming from "../api/identities.js";
import { status } from "../api/review.js";
import { count, fileName, integer, percent } from "../format.js";
import { address } from "../router.js";
import { may, seesAll } from "../session.js";
import { toast } from "../toasts.js";
import { html, render } from "../vendor/preact.js";
import { home as words } from "../words.js";

const LAST = 8; // photos shown of those that were added last

let place;

/** @type {import("../router.js").View} */
export const home = { name: "home", title: words.title, section: "search", start, show };

function start(container) {
  place = container;
}

async function show() {
  try {
    const [ready, cameras, people, last, review] = await Promise.all([
      api.ready(),
      api.cameras(),
      naming.identities({ limit: "1", empty: "false" }),
      api.listItems(new URLSearchParams({ order: "newest", limit: String(LAST) })),
      waiting(),
    ]);
    const shown = { ready, cameras: cameras.length, people: people.total, last: last.items, review };
    render(ready.items === 0 ? html`<${Empty} />` : html`<${There} ...${shown} />`, place);
  } catch (error) {
    toast(error.message);
  }
}

/** How far the review is; null where none was started, or not all of it may be seen. */
async function waiting() {
  if (!seesAll()) return null;
  try {
    return await status();
  } catch (error) {
    if (error.status === 409) return null;
    throw error;
  }
}

function There({ ready, cameras, people, last, review }) {
  return html`
    <h2>${words.title}</h2>
    <${Toy} trainedOn=${ready.trained_on} />
    <ul class="figures">
      <li><a href=${address("browse")}>${count(ready.items, "photo")}</a></li>
      <li>${count(cameras, "camera")}</li>
      <li><a href=${address("individuals")}>${count(people, "individual")}</a></li>
    </ul>
    ${ready.reasons.map((reason) => html`<p class="problem">${reason}</p>`)}
    <h3>${words.waits}</h3>
    <p>
      ${review ? words.questions(integer(review.questions_left), percent(review.settled)) : words.noReview} ${" "}
      <a href=${address("review", review ? [] : ["start"])}>${review ? words.answer : words.review}</a>
    </p>
    <h3>${words.last}</h3>
    <ul class="latest">
      ${last.map(
        (item) => html`<li>
          <a
            href=${address("search", [], new URLSearchParams({ item_id: item.item_id }))}
            aria-label=${words.find(item.label ?? fileName(item.source) ?? words.photo)}
          >
            <img src=${api.thumbnailUrl(item.item_id)} alt="" />
          </a>
        </li>`,
      )}
    </ul>
  `;
}

function Empty() {
  return html`
    <h2>${words.first}</h2>
    <ol class="steps">
      ${words.steps.map(
        ({ title, text, button, view }) => html`<li>
          <h3>${title}</h3>
          <p>${text}</p>
          ${view === "imports" && !may("write")
            ? html`<p>${words.readOnly}</p>`
            : html`<a class="button" href=${address(view)}>${button}</a>`}
        </li>`,
      )}
    </ol>
  `;
}

function Toy({ trainedOn }) {
  return trainedOn === "toy" ? html`<p class="hint">${words.toy}</p>` : null;
}
