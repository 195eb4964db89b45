/** What the machine joined by itself, to look through. */

import * as api from "../api/review.js";
import { percent } from "../format.js";
import { done, perform, propose } from "../steps.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { review as words } from "../words.js";
import { Two } from "./conflicts.js";

const PAGE = 48;

/** The joins that hold, in the order in which they were made. */
export function Joins({ may }) {
  const [joins, tell] = useState([]);
  const [cursor, point] = useState(0);
  const [problem, refuse] = useState(null);
  const [wrong, mark] = useState(new Set());
  async function more(from = cursor, before = joins) {
    try {
      const page = await api.machineJoins(from, PAGE);
      tell([...before, ...page.decisions.filter((one) => !one.superseded && one.answer === "same")]);
      point(page.next_cursor);
    } catch (error) {
      refuse(error.message);
    }
  }
  useEffect(() => {
    more();
    const again = () => {
      mark(new Set());
      more(0, []);
    };
    done.addEventListener("done", again);
    return () => done.removeEventListener("done", again);
  }, []);
  const toggle = (one) => {
    const marked = new Set(wrong);
    if (!marked.delete(one)) marked.add(one);
    mark(marked);
  };
  const chosen = joins.filter((one) => wrong.has(one.decision_id));
  const takeApart = () =>
    perform(words.apart(chosen.length), () => api.decide(chosen.map(({ a, b }) => ({ a, b, answer: "different" }))));
  const undoBatch = (batchId) =>
    propose(words.undoBatchTitle, (dryRun) => api.undo(batchId, dryRun));
  const batches = new Map();
  for (const one of joins) batches.set(one.batch_id, (batches.get(one.batch_id) ?? 0) + 1);
  if (problem) return html`<p class="problem" role="alert">${problem}</p>`;
  return html`
    <p>${joins.length === 0 && cursor === null ? words.noJoins : words.joinsHint}</p>
    ${may && joins.length > 0 ? html`<div class="row bar"><button type="button" disabled=${chosen.length === 0}
      onClick=${takeApart}>${words.takeApart(chosen.length)}</button></div>` : null}
    <ul class="joins">
      ${joins.map(
        (one) => html`
          <li key=${one.decision_id}>
            <button type="button" aria-pressed=${wrong.has(one.decision_id)} disabled=${!may}
              onClick=${() => toggle(one.decision_id)}
              aria-label=${words.join(certainty(one))}>
              <${Two} a=${one.a} b=${one.b} label=${words.join(certainty(one))} />
            </button>
          </li>
        `,
      )}
    </ul>
    ${cursor !== null && joins.length > 0 ? html`<button type="button" onClick=${() => more()}>${words.more}</button>` : null}
    ${may
      ? [...batches].map(([batchId, size]) => html`<p key=${batchId}><button type="button" class="danger"
        onClick=${() => undoBatch(batchId)}>${words.undoBatch(size)}</button></p>`)
      : html`<p>${words.mayNotAnswer}</p>`}
  `;
}

function certainty(one) {
  return one.probability === null ? null : percent(one.probability); // of one that was taken apart and is again
}
