/** One import: what is still to be sent, what is to be said before, how far it is, and what became of each photo. */

import * as api from "../api/imports.js";
import { count, integer, percent, time } from "../format.js";
import { address, go } from "../router.js";
import { may } from "../session.js";
import { toast } from "../toasts.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { imports as words } from "../words.js";
import { Look } from "./look.js";
import { Report } from "./report.js";
import { plain } from "./saying.js";
import { sendingOf, stopSending } from "./sending.js";
import { choose, Inputs } from "./taking.js";
import { isRunning, known, look } from "./watching.js";

const MOST_MISSING = 20;

let acting = Promise.resolve(); // what is said is sent in its order

export function One({ importId }) {
  const [one, read] = useState(null);
  const listed = known().find((other) => other.import_id === importId);
  const sent = sendingOf(importId);
  const changed = listed && `${listed.state} ${listed.done} ${listed.files_received}`;
  useEffect(() => {
    api.getImport(importId).then(read, (error) => {
      toast(error.message);
      if (error.status === 404) go(address("imports"));
    });
  }, [importId, changed, sent?.ended]);
  /** Do something with the import, say what went wrong, and show what is there by now. */
  const act = (work) => {
    acting = acting.then(async () => {
      try {
        await work();
        read(await api.getImport(importId));
      } catch (error) {
        toast(plain(error.message));
      }
      await look();
    });
  };
  const remove = async () => {
    if (!confirm(words.sure)) return;
    try {
      await api.deleteImport(importId);
      go(address("imports"));
    } catch (error) {
      toast(error.message);
    }
  };
  return html`
    <p><a href=${address("imports")}>${words.back}</a></p>
    <${Inputs} />
    ${one === null ? null : html`
      <div class="titled">
        <div>
          <h2>${one.settings.name || words.noName}</h2>
          <p class="hint">${words.states[one.state]}, ${count(one.files, "file")}, ${time(one.created_at)}</p>
        </div>
        ${may("write") ? html`
          <button type="button" class="danger" disabled=${isRunning(one) || (sent && !sent.ended)} onClick=${remove}>${words.delete}</button>
        ` : null}
      </div>
      ${sent && sent.there > 0 ? html`<p>${words.cameBefore(count(sent.there, "file"))}</p>` : null}
      <${Step} one=${one} sent=${sent} act=${act} />
      ${sent && sent.refused.length > 0 ? html`<${Refused} refused=${sent.refused} />` : null}
    `}
  `;
}

/** What there is to do or to see, by how far the import is. */
function Step({ one, sent, act }) {
  if (sent && (!sent.ended || (one.files === 0 && sent.files > 0))) return html`<${Sending} sent=${sent} />`;
  if (one.state === "receiving") {
    if (one.files_received < one.files || one.files === 0) return html`<${Missing} one=${one} act=${act} />`;
    return html`<${Look} one=${one} act=${act} />`;
  }
  if (isRunning(one)) return html`<${Running} one=${one} act=${act} />`;
  const unread = one.state === "failed" && one.done === 0 && may("write"); // it may be that something is to be said first
  return html`
    <${Report} key=${one.state} one=${one} act=${act} again=${!unread} />
    ${unread ? html`<${Look} one=${one} act=${act} />` : null}
  `;
}

function Sending({ sent }) {
  const share = sent.bytes > 0 ? sent.sent / sent.bytes : 0;
  return html`
    <div class="progress">
      <label for="sending-bar">${words.sending(integer(sent.done), count(sent.files, "file"), percent(share))}</label>
      <progress id="sending-bar" max="1" value=${share}></progress>
      <button type="button" onClick=${() => stopSending(sent.importId)}>${words.stop}</button>
    </div>
    <p role="status">${sent.waiting ? words.waiting(sent.waiting) : words.mayLeave}</p>
  `;
}

function Missing({ one, act }) {
  const [names, list] = useState([]);
  useEffect(() => {
    api.missing(one.import_id, MOST_MISSING).then((files) => list(files.map((file) => file.name)), () => {});
  }, [one.files_received]);
  const left = one.files - one.files_received;
  if (!may("write")) return html`<p>${words.missing(count(left, "file"), integer(one.files))}</p>`;
  return html`
    <p role="status">${one.files === 0 ? words.noFiles : words.missing(count(left, "file"), integer(one.files))}</p>
    <div class="row">
      <button type="button" class="primary" onClick=${() => choose(false)}>${words.chooseFiles}</button>
      <button type="button" onClick=${() => choose(true)}>${words.chooseFolder}</button>
      ${one.files_received > 0 ? html`
        <button type="button" onClick=${() => act(() => api.startImport(one.import_id, true))}>${words.goWithout}</button>
      ` : null}
    </div>
    <ul class="files" aria-label=${words.missingFiles}>
      ${names.map((name) => html`<li key=${name}>${name}</li>`)}
      ${left > names.length && names.length > 0 ? html`<li>${words.more(integer(left - names.length))}</li>` : null}
    </ul>
  `;
}

function Running({ one, act }) {
  const share = one.total ? one.done / one.total : 0;
  const said = one.state === "queued" ? words.queued : one.total ? words.running(integer(one.done), integer(one.total)) : words.reading;
  return html`
    <div class="progress">
      <label for="import-bar">${said}</label>
      <progress id="import-bar" max="1" value=${share}></progress>
      ${may("write") ? html`
        <button type="button" onClick=${() => act(() => api.cancelImport(one.import_id))}>${words.cancel}</button>
      ` : null}
    </div>
    <p>${words.mayClose}</p>
  `;
}

function Refused({ refused }) {
  return html`
    <section aria-labelledby="import-refused">
      <h3 id="import-refused">${words.notSent}</h3>
      <ul class="files">
        ${refused.map(({ name, reason }) => html`<li key=${name}><b>${name}</b> <span>${reason}</span></li>`)}
      </ul>
    </section>
  `;
}
