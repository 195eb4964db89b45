/** What else is said of an individual, by names that people choose: sex, age, collar. */

import { html, useState } from "../vendor/preact.js";
import { individuals as words } from "../words.js";
import { save } from "./described.js";

/** The attributes in a form, or alone for who may not change them. */
export function Attributes({ one, may }) {
  const there = Object.entries(one.attributes).map(([name, value]) => ({ name, text: shown(value), value }));
  const [rows, write] = useState(there);
  if (!may) {
    return there.length > 0 ? html`<dl class="about-one">${there.map(({ name, text }) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>` : null;
  }
  const change = (place, said) => write(rows.map((row, number) => (number === place ? { ...row, ...said } : row)));
  const twice = rows.find(({ name }, place) => name.trim() && rows.findIndex((row) => row.name.trim() === name.trim()) !== place);
  const submit = (event) => {
    event.preventDefault();
    const kept = rows.filter(({ name, text }) => name.trim() && text.trim());
    // What was no text, as a program wrote it, stays what it was where nobody changed it.
    const attributes = kept.map(({ name, text, value }) => [name.trim(), value !== undefined && text === shown(value) ? value : text.trim()]);
    save(one, { attributes: Object.fromEntries(attributes) }, words.edited);
  };
  return html`
    <form class="attributes" onSubmit=${submit} aria-label=${words.attributes}>
      <h4>${words.attributes}</h4>
      ${rows.map(({ name, text }, place) => html`<div class="row" key=${place}>
        <input aria-label=${words.attribute(place + 1)} value=${name} maxlength="200" autocomplete="off" placeholder=${words.attributeName}
          onInput=${(event) => change(place, { name: event.target.value })} />
        <input aria-label=${words.valueOf(name || place + 1)} value=${text} autocomplete="off" placeholder=${words.attributeValue}
          onInput=${(event) => change(place, { text: event.target.value })} />
        <button type="button" aria-label=${words.dropAttribute(name || place + 1)} onClick=${() => write(rows.toSpliced(place, 1))}>×</button>
      </div>`)}
      ${twice ? html`<p class="problem" role="alert">${words.twice(twice.name.trim())}</p>` : null}
      <div class="row">
        <button type="button" onClick=${() => write([...rows, { name: "", text: "", value: undefined }])}>${words.addAttribute}</button>
        <button disabled=${Boolean(twice)}>${words.saveAttributes}</button>
      </div>
    </form>
  `;
}

function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}
