/** What an operator looks after: state, disk, model, cameras, jobs, keys and logs. */

import * as api from "../api.js";
import { html, render } from "../vendor/preact.js";
import { count } from "../format.js";
import { refreshNames } from "../names.js";
import { toast } from "../toasts.js";
import { admin as words } from "../words.js";
import { Disk } from "./admin_disk.js";
import { Jobs, isOpen } from "./admin_jobs.js";
import { Keys } from "./admin_keys.js";
import { Logs } from "./admin_logs.js";
import { Model } from "./admin_model.js";

const SECONDS_BETWEEN_LOOKS = 2;

let place;
let timer = null;
let shown = false;
let away = false; // the service, as was said already
let jobs = [];
let keys = [];
let cameras = [];
let ready = null;
let model = null;
let disk = null;
let looked = null; // which jobs had ended when the disk was looked at
let secret = null; // of the key that was just made

/** @type {import("../router.js").View} */
export const admin = { name: "admin", title: words.title, section: "service", scope: "admin", start, show, hide };

function start(container) {
  place = container;
}

async function show() {
  secret = looked = null;
  shown = true;
  await reload();
}

function hide() {
  clearTimeout(timer);
  shown = false;
  secret = null;
}

/** Do something, say what went wrong, and show what is there by now. */
async function act(work) {
  try {
    await work();
  } catch (error) {
    toast(error.message);
    away = error.status === 0; // which is said by now
  }
  await reload();
}

async function reload() {
  clearTimeout(timer);
  try {
    [ready, jobs, keys, cameras, model] = await Promise.all([api.ready(), api.jobs(), api.keys(), api.cameras(), api.model()]);
    away = false;
    draw();
    await lookAtDisk();
    if (jobs.some(isOpen)) lookAgain();
  } catch (error) {
    if (error.status !== 0 || !away) toast(error.message);
    away = error.status === 0;
    if (away) lookAgain();
  }
}

function lookAgain() {
  clearTimeout(timer);
  if (shown) timer = setTimeout(reload, 1000 * SECONDS_BETWEEN_LOOKS);
}

/** The service looks at every file for this: when the view is shown, and when another job has ended. */
async function lookAtDisk() {
  const ended = jobs.filter((job) => !isOpen(job)).map((job) => job.job_id).join();
  if (ended === looked) return;
  disk = await api.disk();
  looked = ended;
  draw();
}

function draw() {
  render(html`
    <h2>${words.title}</h2>
    <${State} />
    <${Disk} disk=${disk} />
    <${Model} model=${model} />
    <${Cameras} />
    <${Jobs} jobs=${jobs} act=${act} />
    <${Keys} keys=${keys} secret=${secret} act=${act} told=${(made) => { secret = made; }} />
    <${Logs} />
  `, place);
}

function State() {
  return html`
    <section aria-labelledby="admin-state">
      <h3 id="admin-state">${words.state}</h3>
      <dl>
        <div><dt>${words.items}</dt><dd>${count(ready.items, "photo")}</dd></div>
        <div><dt>${words.health}</dt><dd>${[ready.status, ...ready.reasons].join(": ")}</dd></div>
      </dl>
      <p><a href="docs">${words.api}</a></p>
    </section>
  `;
}

function Cameras() {
  return html`
    <section aria-labelledby="admin-cameras">
      <h3 id="admin-cameras">${words.cameras}</h3>
      ${cameras.length === 0 ? html`<p>${words.noCameras}</p>` : null}
      <ul class="files">
        ${cameras.map(({ name, items }) => html`
          <li key=${name}>
            <form class="row" onSubmit=${(event) => rename(event, name, items)}>
              <b>${name}</b> <span>${count(items, "photo")}</span>
              <input name="to" required maxlength="200" autocomplete="off" list="camera-names"
                aria-label=${words.renameOne(name)} placeholder=${words.rename} />
              <button type="submit">${words.save}</button>
            </form>
          </li>
        `)}
      </ul>
    </section>
  `;
}

function rename(event, name, items) {
  event.preventDefault();
  const form = event.target;
  const to = form.elements.to.value.trim();
  if (!to || to === name) return;
  if (cameras.some((other) => other.name === to) && !confirm(words.confirmMerge(name, to, items))) return;
  act(async () => {
    const done = await api.editAll({ filter: { cameras: [name] } }, { changes: { camera: to } }, items);
    form.reset();
    toast(words.renamed(done.changed, to), { name: "Undo", run: () => act(() => api.undoEdit(done.steps[0])) });
    await refreshNames();
  });
}
