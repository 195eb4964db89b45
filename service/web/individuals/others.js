/** Other individuals: who may be the same, and merging. */

import { query, thumbnailUrl } from "../api.js";
import * as api from "../api/identities.js";
import { decide } from "../api/review.js";
import { written } from "../dom.js";
import { percent } from "../format.js";
import { address } from "../router.js";
import { perform, propose } from "../steps.js";
import { toast } from "../toasts.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { individuals as words } from "../words.js";

const MOST_NEAR = 8;

/** Merge an individual into another, whose page tells so from then on. */
export function mergeInto(one, other, name) {
  const title = words.mergeTitle(one.name ?? words.noName, name);
  return propose(title, (dryRun) => api.merge(one.identity_id, { into: other, dry_run: dryRun }), { [other]: name });
}

/** A form to merge with somebody by name. */
export function Merging({ one }) {
  const [offered, offer] = useState([]);
  async function complete(event) {
    const { identities } = await api.identities({ q: event.target.value, limit: 20 }).catch(() => ({ identities: [] }));
    offer(identities.filter((other) => other.name && other.identity_id !== one.identity_id));
  }
  async function merge(event) {
    event.preventDefault();
    const name = written(event.target, "other");
    const { identities } = await api.identities({ q: name, limit: 1000 }).catch(() => ({ identities: [] }));
    const other = identities.find((found) => found.name === name && found.identity_id !== one.identity_id);
    if (other) await mergeInto(one, other.identity_id, other.name);
    else toast(words.noOther(name));
  }
  return html`
    <form class="row" onSubmit=${merge}>
      <label>${words.mergeWith} <input name="other" list="others" maxlength="200" autocomplete="off" required
        onInput=${complete} /></label>
      <datalist id="others">${offered.map((other) => html`<option key=${other.identity_id} value=${other.name} />`)}</datalist>
      <button>${words.merge}</button>
    </form>
  `;
}

/** Those whose photos are nearest to the cover. */
export function Near({ one, may }) {
  const [near, tell] = useState(null);
  const [problem, refuse] = useState(null);
  useEffect(() => {
    const form = new FormData();
    const wanted = { item_id: one.cover, group_by: "identity", top_k: MOST_NEAR + 1 };
    for (const [name, value] of Object.entries(wanted)) form.append(name, String(value));
    query(form).then(
      ({ matches }) => tell(matches.filter((match) => match.identity_id !== one.identity_id).slice(0, MOST_NEAR)),
      (error) => refuse(error.message),
    );
  }, [one]);
  const join = (match) =>
    match.identity_id
      ? mergeInto(one, match.identity_id, match.label ?? words.noName)
      : answer(match.item_id, "same");
  const answer = (other, given) =>
    perform(words.answered(words.answers[given]), () => decide([{ a: one.cover, b: other, answer: given }]));
  return html`
    <section aria-label=${words.near}>
      <h4>${words.near}</h4>
      <p class="hint">${words.nearHint}</p>
      ${problem ? html`<p class="problem">${problem}</p>` : null}
      ${near?.length === 0 ? html`<p>${words.nobodyNear}</p>` : null}
      <ul class="cards">
        ${(near ?? []).map(
          (match) => html`
            <li key=${match.item_id}>
              <div class="card">
                <span class="frame"><img src=${thumbnailUrl(match.item_id)} alt="" loading="lazy" /></span>
                ${match.identity_id ? html`<a
                  href=${address("individuals", [match.identity_id])}>${match.label ?? words.noName}</a>` : html`<span
                  class="none">${words.noName}</span>`}
                <span>${match.probability === null ? match.score.toFixed(3) : percent(match.probability)}</span>
                ${may ? html`<span class="row">
                  <button type="button"
                    onClick=${() => join(match)}>${words.theSame}</button>
                  <button type="button" onClick=${() => answer(match.item_id, "different")}>${words.differ}</button>
                </span>` : null}
              </div>
            </li>
          `,
        )}
      </ul>
    </section>
  `;
}
