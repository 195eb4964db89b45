/** Review: questions about who is who, conflicts, and what the machine joined. */

import { Conflicts } from "../review/conflicts.js";
import { Joins } from "../review/joins.js";
import { Queue } from "../review/queue.js";
import { GoesOn, NewOne } from "../review/one_import.js";
import { IMPORT } from "../filters.js";
import { address, here, rename } from "../router.js";
import { may, seesAll } from "../session.js";
import { html, render } from "../vendor/preact.js";
import { review as words } from "../words.js";

const PARTS = ["", "conflicts", "joins", "start"];
let container;

/** @type {import("../router.js").View} */
export const review = { name: "review", title: words.title, section: "names", start, show, hide };

function start(made) {
  container = made;
}

function show(place) {
  const part = PARTS.includes(place.parts[0]) ? place.parts[0] : "";
  render(html`<${Review} part=${part} jobId=${place.fields.get("job")} importId=${place.fields.get(IMPORT)}
    anew=${place.fields.has("anew")} />`, container);
}

function hide() {
  render(null, container);
}

/** The questions of a review, in place of its start; of one import where that goes on. */
function showQuestions(importId) {
  rename(address("review", [], new URLSearchParams(importId ? { [IMPORT]: importId } : {})));
  show(here());
}

function Review({ part, jobId, importId, anew }) {
  return html`
    <h2>${words.title}</h2>
    <nav class="parts" aria-label=${words.title}>
      ${PARTS.map((one) => html`<a key=${one} href=${address("review", one ? [one] : [])} aria-current=${one === part ? "page"
        : null}>${words.parts[one]}</a>`)}
    </nav>
    ${part === "" && importId ? html`<${GoesOn} key=${importId} importId=${importId} />` : null}
    ${part === "" ? (may("write") ? html`<${Queue} />` : html`<p>${words.mayNotAnswer}</p>`) : null}
    ${part === "conflicts" ? html`<${Conflicts} may=${may("write")} />` : null}
    ${part === "joins" ? html`<${Joins} may=${may("write")} />` : null}
    ${part === "start" ? html`<${NewOne} key=${importId} jobId=${jobId} importId=${importId} anew=${anew} may=${may("write") && seesAll()} started=${showQuestions} />` : null}
  `;
}
