/** Where the clocks of an import were: said before it is started, and changed after it was done. */

import * as api from "../api/imports.js";
import { count, integer, ZONE } from "../format.js";
import { tellAdded, undoable } from "../items.js";
import { toast } from "../toasts.js";
import { html } from "../vendor/preact.js";
import { imports as words } from "../words.js";

/** The zone before the start, as long as there are times that need one. */
export function Zone({ one, seen, change }) {
  const zone = one.settings.timezone;
  const asks = seen.zoneless > 0 ? words.zoneless(integer(seen.zoneless), count(seen.looked_at, "photo")) : words.zone;
  return html`<${Asked} zone=${zone} text=${zone === null ? asks : words.zoneSaid(zone)} say=${(timezone) => change({ timezone })} />`;
}

/** The zone after the end, for all times of the import that were read by a clock without one. */
export function ZoneAfter({ one, act }) {
  const say = (timezone) =>
    act(async () => {
      const { changed, batch_id: step } = await api.placeIn(one.import_id, timezone);
      if (changed === 0) {
        toast(words.noTimes);
        return;
      }
      tellAdded();
      undoable(words.moved(count(changed, "time"), timezone), () => act(() => takeBack(one.import_id, step)));
    });
  return html`
    <details>
      <summary>${words.changeZone}</summary>
      <${Asked} zone=${one.settings.timezone} text=${words.zoneAfter(one.settings.timezone)} say=${say} />
    </details>
  `;
}

/** Take back what an import changed of photos. */
export async function takeBack(importId, step) {
  await api.undoImport(importId, step);
  tellAdded();
}

/** What is written meanwhile stays when all is drawn anew, until another zone was taken. */
function Asked({ zone, text, say }) {
  const zones = /** @type {any} */ (Intl).supportedValuesOf?.("timeZone") ?? [];
  const send = (event) => {
    event.preventDefault();
    say(event.target.elements.zone.value.trim());
  };
  return html`
    <form class="asked" key=${zone} onSubmit=${send}>
      <label for="import-zone">${text}</label>
      <div class="row">
        <input id="import-zone" name="zone" list="import-zones" required defaultValue=${zone ?? ZONE} autocomplete="off" />
        <datalist id="import-zones">${zones.map((name) => html`<option key=${name} value=${name}></option>`)}</datalist>
        <button type="submit">${words.sayZone}</button>
      </div>
    </form>
  `;
}
