/** How far along a review is, and when to stop. */

import * as api from "../api/review.js";
import { count, integer, percent } from "../format.js";
import { address } from "../router.js";
import { seesAll } from "../session.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { review as words } from "../words.js";

const EVERY = 5; // answers, after which it is asked for again

/** Told after every few of the `answers` of this tab; `pace` is how many seconds each took. */
export function Progress({ answers, pace }) {
  const [status, tell] = useState(null);
  const [problem, refuse] = useState(null);
  const portion = Math.ceil(answers / EVERY);
  useEffect(() => {
    if (!seesAll()) return;
    api.status().then(
      (told) => {
        tell(told);
        refuse(null);
      },
      (error) => refuse(error.status === 409 || error.status === 0 ? null : error.message), // which the queue tells
    );
  }, [portion]);
  if (!seesAll()) return html`<p class="review-state">${words.onlyYours} ${words.answered(answers)}</p>`;
  if (problem) return html`<p class="problem">${problem}</p>`;
  if (!status) return null;
  const minutes = pace === null ? null : Math.max(1, Math.round((pace * status.questions_left) / 60));
  return html`
    <div class="review-state">
      <progress value=${status.settled} max="1" aria-label=${words.settled}></progress>
      <p>
        ${words.progress(percent(status.settled), count(status.items, "photo"))} ${" "}
        <b>${words.individuals(integer(Math.round(status.identities)), integer(status.low), integer(status.high))}</b>
        ${" "}${words.left(integer(status.questions_left), minutes)} ${words.answered(answers)}
      </p>
      <p>
        ${words.stop(status.words)}
        ${status.conflicts > 0 ? html` <a href=${address("review", ["conflicts"])}>${words.conflictCount(status.conflicts)}</a>`
          : null}
      </p>
      ${status.weak ? html`<p class="doubt">${words.weak(integer(status.questions_left))}</p>` : null}
    </div>
  `;
}
