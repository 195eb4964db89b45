/** What people say of an individual: its name, aliases and notes. */

import * as api from "../api/identities.js";
import { written } from "../dom.js";
import { count } from "../format.js";
import { done } from "../steps.js";
import { toast } from "../toasts.js";
import { html, useState } from "../vendor/preact.js";
import { individuals as words } from "../words.js";
import { plain } from "./names.js";
import { mergeInto } from "./others.js";

const SECONDS = 20; // for which an edit can be taken back

/** The forms, or the values alone for who may not change them. */
export function Described({ one, may }) {
  const [taken, offer] = useState(null);
  if (!may) return html`<p class="notes">${one.notes}</p>${one.aliases.length > 0
    ? html`<p>${words.aliases}: ${one.aliases.join(", ")}</p>` : null}`;
  async function rename(event) {
    event.preventDefault();
    const name = written(event.target, "name");
    if (!name || name === one.name) return;
    try {
      const alike = await sameName(name, one);
      if (alike) offer({ name, ...alike });
      else await save(one, { name }, words.renamed(one.name ?? words.noName, name));
    } catch (error) {
      toast(error.message);
    }
  }
  async function describe(event) {
    event.preventDefault();
    const aliases = written(event.target, "aliases").split(",").map((alias) => alias.trim()).filter(Boolean);
    await save(one, { notes: written(event.target, "notes"), aliases }, words.edited);
  }
  return html`
    <form onSubmit=${rename}>
      <label>${words.name} <input name="name" defaultValue=${one.name ?? ""} key=${one.name}
        maxlength="200" autocomplete="off" /></label>
      <p class="hint">${words.renameHint(count(one.photos, "photo"))}</p>
      <button>${words.rename}</button>
      ${taken ? html`<${Taken} one=${one} taken=${taken} close=${() => offer(null)} />` : null}
    </form>
    <form onSubmit=${describe} key=${`${one.aliases} ${one.notes}`}>
      <label>${words.aliases} (${words.aliasesHint}) <input name="aliases" defaultValue=${one.aliases.join(", ")} /></label>
      <label>${words.notes} <textarea name="notes" rows="3" defaultValue=${one.notes}></textarea></label>
      <button>${words.save}</button>
    </form>
  `;
}

/** Who has this name already, or one that is spelt alike. */
async function sameName(name, one) {
  const { identities } = await api.identities({ q: name, limit: 1000 });
  const others = identities.filter((other) => other.identity_id !== one.identity_id && other.name);
  const found = others.find((other) => other.name === name) ?? others.find((other) => plain(other.name) === plain(name));
  return found ? { other: found, exact: found.name === name } : null;
}

function Taken({ one, taken, close }) {
  const { name, other, exact } = taken;
  const merge = () => {
    close();
    mergeInto(one, other.identity_id, other.name);
  };
  const anyway = () => {
    close();
    save(one, { name }, words.renamed(one.name ?? words.noName, name));
  };
  return html`
    <div role="alert" class="taken">
      <p>${exact ? words.taken(other.name) : words.similar(other.name)} (${count(other.photos, "photo")})</p>
      <div class="row">
        <button type="button" class="primary" onClick=${merge}>${words.mergeInto(other.name)}</button>
        ${exact ? null : html`<button type="button" onClick=${anyway}>${words.renameAnyway}</button>`}
        <button type="button" onClick=${close}>${words.cancel}</button>
      </div>
    </div>
  `;
}

/** Save changes, which a message offers to take back where there was a value before. */
export async function save(one, changes, title) {
  const former = Object.fromEntries(Object.keys(changes).map((field) => [field, one[field]]));
  try {
    await api.editIdentity(one.identity_id, changes);
    const back = former.name === null ? null : { name: words.undo, run: takeBack };
    const takeAway = toast(`${title}.`, back, SECONDS);
    async function takeBack() {
      takeAway();
      await takeBackEdit(one, former).catch((error) => toast(error.message));
      done.dispatchEvent(new Event("done"));
    }
  } catch (error) {
    toast(error.message);
  }
  done.dispatchEvent(new Event("done"));
}

/** Give an individual its former values; a name that it loses becomes an alias, which goes too. */
async function takeBackEdit(one, former) {
  await api.editIdentity(one.identity_id, former);
  if ("name" in former) await api.editIdentity(one.identity_id, { aliases: one.aliases });
}
