/** The individuals of the gallery, to find one of them, and to take the table home. */

import * as api from "../api/identities.js";
import { status } from "../api/review.js";
import { thumbnailUrl } from "../api.js";
import { written } from "../dom.js";
import { count, timeThere } from "../format.js";
import { address } from "../router.js";
import { done, propose } from "../steps.js";
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { individuals as words } from "../words.js";
import { plain } from "./names.js";

const PAGE = 60;
const SECONDS = 2; // until an outage is looked at again
const SORTS = ["name", "photos", "last_seen", "first_seen", "newest"];
const MILLISECONDS = 200; // after the last letter, until a name is looked for

/** Those whose name has `q` in it, by `sort`; `change` is given the events of both inputs. */
export function List({ q, sort, empty, may, change }) {
  const [found, tell] = useState(null);
  const [problem, refuse] = useState(null);
  const asking = `${q} ${sort} ${empty}`;
  const asked = useRef(null); // of what an outage is looked at again
  async function look(cursor = 0, before = []) {
    try {
      const page = await api.identities({ q, sort, empty: String(empty), cursor: String(cursor), limit: String(PAGE) });
      tell({ ...page, identities: [...before, ...page.identities] });
      refuse(null);
    } catch (error) {
      refuse(error.message);
      const again = () => asked.current === asking && look(cursor, before);
      if (error.status === 0 || error.status >= 500) setTimeout(again, 1000 * SECONDS);
    }
  }
  useEffect(() => {
    asked.current = asking;
    const again = () => look();
    const later = setTimeout(again, found ? MILLISECONDS : 0);
    done.addEventListener("done", again);
    return () => {
      asked.current = null;
      clearTimeout(later);
      done.removeEventListener("done", again);
    };
  }, [asking]);
  return html`
    <form class="row" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label>${words.find} <input type="search" name="q" value=${q} onInput=${change} /></label>
      <label>
        ${words.sort}
        <select name="sort" onChange=${change}>
          ${SORTS.map((one) => html`<option key=${one} value=${one} selected=${one === sort}>${words.sorts[one]}</option>`)}
        </select>
      </label>
      <label class="check"><input type="checkbox" name="empty" value="true" checked=${empty} onChange=${change} /> ${words.empty}</label>
    </form>
    <details class="tools">
      <summary>${may ? words.tools : words.table}</summary>
      <${Table} />
      ${may ? html`<${New} />` : null}
    </details>
    <p class="problem" role="alert">${problem}</p>
    <p role="status">${found && words.total(count(found.total, words.individual))}</p>
    ${found?.total === 0 ? html`<p class="empty">${q ? words.noneFound : words.none}</p>` : null}
    <ul class="cards individuals">
      ${alike(found?.identities ?? []).map(
        ({ one, spelt }) => html`<li key=${one.identity_id}><${Card} one=${one} spelt=${spelt} /></li>`,
      )}
    </ul>
    ${found?.next_cursor ? html`<button type="button"
      onClick=${() => look(found.next_cursor, found.identities)}>${words.more}</button>` : null}
  `;
}

/** Each with the other names that are spelt alike. */
function alike(identities) {
  const named = Map.groupBy(identities.filter((one) => one.name), (one) => plain(one.name));
  return identities.map((one) => ({
    one,
    spelt: one.name ? named.get(plain(one.name)).filter((other) => other !== one).map((other) => other.name) : [],
  }));
}

function Card({ one, spelt }) {
  return html`
    <a class="card" href=${address("individuals", [one.identity_id])}>
      <span class="frame">${one.cover ? html`<img src=${thumbnailUrl(one.cover)} alt="" loading="lazy" />` : null}</span>
      <b class=${one.name ? "" : "none"}>${one.name ?? words.noName}</b>
      <span>${count(one.photos, "photo")}</span>
      ${one.last_seen ? html`<time dateTime=${one.last_seen}>${words.lastSeen(timeThere(one.last_seen))}</time>` : null}
      ${spelt.length > 0 ? html`<span class="doubt">${words.alike(spelt)}</span>` : null}
    </a>
  `;
}

function New() {
  function make(event) {
    event.preventDefault();
    const name = written(event.target, "name");
    if (name) propose(words.addTitle(name), (dryRun) => api.createIdentity({ name, dry_run: dryRun }));
  }
  return html`
    <form class="row" onSubmit=${make}>
      <label>${words.addName} <input name="name" maxlength="200" autocomplete="off" required /></label>
      <button>${words.add}</button>
    </form>
  `;
}

function Table() {
  const [format, choose] = useState("table");
  const [species, name] = useState("");
  const [problem, refuse] = useState(null);
  const wanted = asked(format, species.trim());
  useEffect(() => {
    refuse(null);
    // Without a review nobody is likely; who may not ask how it stands has one for all that is known here.
    if (format === "likely") status().catch((error) => error.status === 409 && refuse(error.message));
  }, [format]);
  return html`
    <fieldset class="row">
      <legend>${words.table}</legend>
      <label>
        ${words.format}
        <select onChange=${(event) => choose(event.target.value)}>
          ${Object.entries(words.formats).map(([value, label]) => html`<option key=${value} value=${value}>${label}</option>`)}
        </select>
      </label>
      ${format === "wildbook" ? html`<label>${words.species} <input value=${species}
        onInput=${(event) => name(event.target.value)} placeholder="Tragelaphus angasii" /></label>` : null}
      ${wanted && !problem ? html`<a class="button" download href=${api.catalogueUrl(wanted)}>${words.download}</a>` : null}
      <span class="problem" role="alert">${problem}</span>
    </fieldset>
  `;
}

/** What to ask the catalogue for; null while the name of the species is not whole. */
function asked(format, species) {
  if (format === "wildbook") return species.includes(" ") ? { format, species } : null;
  return format === "likely" ? { format: "table", likely: "true" } : { format };
}
