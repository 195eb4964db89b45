/** An individual: all that is known of it, and what can be done about it. */

import * as api from "../api/identities.js";
import { undo } from "../api/review.js";
import { count, inOrder, time, timeThere } from "../format.js";
import { Conflict } from "../review/conflicts.js";
import { address } from "../router.js";
import { done, propose } from "../steps.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { individuals as words } from "../words.js";
import { Attributes } from "./attributes.js";
import { Described } from "./described.js";
import { mergeInto, Merging, Near } from "./others.js";
import { Photos } from "./photos.js";

const SECONDS = 2; // until an outage is looked at again

/** The individual of an id. */
export function One({ identityId, may }) {
  const [one, tell] = useState(null);
  const [problem, refuse] = useState(null);
  useEffect(() => {
    let left = false;
    const look = () =>
      !left &&
      api.identity(identityId).then(
        (found) => {
          if (left) return;
          tell(found);
          refuse(null);
        },
        (error) => {
          if (left) return;
          refuse(error.message);
          if (error.status === 0 || error.status >= 500) setTimeout(look, 1000 * SECONDS);
        },
      );
    tell(null);
    look();
    done.addEventListener("done", look);
    return () => {
      left = true;
      done.removeEventListener("done", look);
    };
  }, [identityId]);
  return html`
    <p><a href=${address("individuals")}>${words.back}</a></p>
    <p class="problem" role="alert">${problem}</p>
    ${one ? (one.merged_into ? html`<${Gone} one=${one} may=${may} />` : html`<${Whole} key=${identityId} one=${one}
      may=${may} />`) : null}
  `;
}

function Whole({ one, may }) {
  const merged = one.merged.filter((former) => former.name); // others are groups that answers joined
  const name = one.name ?? words.noName;
  const seen = [one.first_seen, one.last_seen].filter(Boolean).map(timeThere);
  return html`
    <h3>${name} <small>${count(one.photos, "photo")}</small></h3>
    <dl class="about-one">
      ${seen.length > 0 ? html`<div><dt>${words.seen}</dt><dd>${[...new Set(seen)].join(" – ")}</dd></div>` : null}
      ${one.cameras.length > 0 ? html`<div><dt>${words.cameras}</dt><dd>${one.cameras.toSorted(inOrder).join(", ")}</dd></div>` : null}
      ${one.sites.length > 0 ? html`<div><dt>${words.sites}</dt><dd>${one.sites.toSorted(inOrder).join(", ")}</dd></div>` : null}
    </dl>
    ${may ? null : html`<p>${words.mayNot}</p>`}
    ${one.similar.map((id) => html`<${Similar} key=${id} one=${one} other=${id} may=${may} />`)}
    <div class="said-of">
      <${Described} one=${one} may=${may} />
      <${Attributes} key=${JSON.stringify(one.attributes)} one=${one} may=${may} />
      ${may ? html`<${Merging} one=${one} />` : null}
    </div>
    ${one.conflicts.length > 0 ? html`<section aria-label=${words.conflicts}><h4>${words.conflicts}</h4>
      <ul class="disputes">${one.conflicts.map((dispute) => html`<li key=${`${dispute.a} ${dispute.b}`}><${Conflict}
        dispute=${dispute} may=${may} /></li>`)}</ul></section>` : null}
    <${Photos} one=${one} may=${may} />
    ${one.cover ? html`<${Near} one=${one} may=${may} />` : null}
    ${merged.length > 0 ? html`<section aria-label=${words.merged}><h4>${words.merged}</h4>
      <ul>${merged.map((former) => html`<li key=${former.identity_id} class="row"><span>${former.name}</span>
        ${may ? html`<button type="button" onClick=${() => unmerge(former.identity_id, former.name)}>${words.unmerge}</button>`
          : null}</li>`)}</ul></section>` : null}
    <${Decisions} decisions=${one.decisions} may=${may} />
  `;
}

function Similar({ one, other, may }) {
  const [name, tell] = useState(null);
  useEffect(() => {
    api.identity(other).then((found) => tell(found.name), () => {}); // gone by now
  }, [other]);
  if (!name) return null;
  return html`
    <p class="row doubt">
      <span>${words.similar(name)}</span> <a href=${address("individuals", [other])}>${name}</a>
      ${may ? html`<button type="button" onClick=${() => mergeInto(one, other, name)}>${words.mergeInto(name)}</button>` : null}
    </p>
  `;
}

function unmerge(identityId, name) {
  return propose(words.unmergeTitle(name), (dryRun) => api.unmerge(identityId, { dry_run: dryRun }), { [identityId]: name });
}

function Gone({ one, may }) {
  const [into, tell] = useState(null);
  useEffect(() => {
    let left = false;
    const look = () =>
      !left &&
      api.identity(one.merged_into).then(
        (found) => left || tell(found),
        (error) => (error.status === 0 || error.status >= 500) && setTimeout(look, 1000 * SECONDS), // else its id has to do
      );
    look();
    return () => {
      left = true;
    };
  }, [one.merged_into]);
  const name = into?.name ?? words.noName;
  return html`
    <p>${words.gone(name)} <a href=${address("individuals", [one.merged_into])}>${name}</a></p>
    ${may ? html`<button type="button"
      onClick=${() => unmerge(one.identity_id, one.aliases[0] ?? words.noName)}>${words.unmerge}</button>` : null}
  `;
}

function Decisions({ decisions, may }) {
  const steps = Map.groupBy([...decisions].reverse(), (one) => one.batch_id);
  return html`
    <details class="decisions">
      <summary>${words.decisions} (${decisions.length})</summary>
      <ul>
        ${[...steps].map(
          ([batchId, made]) => html`
            <li key=${batchId} class="row">
              <time dateTime=${made[0].answered_at}>${time(made[0].answered_at)}</time>
              <span>${accountOf(made)}</span>
              ${may && made.some((one) => !one.superseded && one.answer !== "withdrawn")
                ? html`<button type="button"
                  onClick=${() => propose(words.takeBackTitle, (dryRun) => undo(batchId, dryRun))}>${words.takeBack}</button>`
                : null}
            </li>
          `,
        )}
      </ul>
    </details>
  `;
}

function accountOf(decisions) {
  const alike = Map.groupBy(decisions, (one) => words.decision(words.answers[one.answer], words.basis[one.basis]));
  return [...alike].map(([said, some]) => `${said} (${some.length})`).join("; ");
}
