/** Photos that were told apart and are joined by others, with ways to settle it. */

import { thumbnailUrl } from "../api.js";
import { split } from "../api/identities.js";
import * as api from "../api/review.js";
import { address } from "../router.js";
import { done, perform, propose } from "../steps.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { review as words } from "../words.js";

const MOST_SHOWN = 12; // photos of the part that would leave

/** All conflicts. */
export function Conflicts({ may }) {
  const [found, tell] = useState(null);
  const [problem, refuse] = useState(null);
  useEffect(() => {
    const look = () => api.conflicts().then(tell, (error) => refuse(error.message));
    look();
    done.addEventListener("done", look);
    return () => done.removeEventListener("done", look);
  }, []);
  if (problem) return html`<p class="problem" role="alert">${problem}</p>`;
  if (!found) return null;
  return html`
    <p role="status">${words.conflictCount(found.length)}</p>
    <ul class="disputes">
      ${found.map((one) => html`<li key=${`${one.a} ${one.b}`}><${Conflict} dispute=${one} may=${may} /></li>`)}
    </ul>
  `;
}

/** One of them. */
export function Conflict({ dispute, may }) {
  const { a, b, part, weakest, identity_id: identityId } = dispute;
  const answer = (one, other, given) =>
    perform(words.gave(words.answers[given]), () => api.decide([{ a: one, b: other, answer: given }]));
  const splitOff = () =>
    propose(words.splitTitle(part.length), (dryRun) => split(identityId, { item_ids: part, dry_run: dryRun }));
  return html`
    <p>${words.conflict} <a href=${address("individuals", [identityId])}>${words.toIndividual}</a></p>
    <${Two} a=${a} b=${b} label=${words.toldApart} />
    ${may ? html`<div class="row"><button type="button"
      onClick=${() => answer(a, b, "same")}>${words.sameAfterAll}</button></div>` : null}
    ${weakest.map(
      (one) => html`
        <${Two} key=${`${one.a} ${one.b}`} a=${one.a} b=${one.b} label=${words.weakest} />
        ${may ? html`<div class="row"><button type="button"
          onClick=${() => answer(one.a, one.b, "different")}>${words.weakestDiffer}</button></div>` : null}
      `,
    )}
    <p>${words.part(part.length)}</p>
    <div class="thumbnails">
      ${part.slice(0, MOST_SHOWN).map((one) => html`<img key=${one} src=${thumbnailUrl(one)} alt="" />`)}
    </div>
    ${may ? html`<div class="row"><button type="button" onClick=${splitOff}>${words.splitPart(part.length)}</button></div>`
      : html`<p>${words.mayNotAnswer}</p>`}
  `;
}

/** Two photos side by side, small. */
export function Two({ a, b, label }) {
  return html`
    <figure class="two">
      <img src=${thumbnailUrl(a)} alt=${words.one} /><img src=${thumbnailUrl(b)} alt=${words.other} />
      <figcaption>${label}</figcaption>
    </figure>
  `;
}
