/** The model that is loaded, where its probabilities come from, and how photos are found. */

import { integer, percent } from "../format.js";
import { html } from "../vendor/preact.js";
import { admin as words } from "../words.js";

/** What the service tells of its model. */
export function Model({ model }) {
  const { calibration, engine } = model;
  return html`
    <section aria-labelledby="admin-model">
      <h3 id="admin-model">${words.model}</h3>
      <dl>
        <${Fact} name=${words.method} told=${model.name} />
        <${Fact} name=${words.source} told=${model.source} />
        <${Fact} name=${words.modelId} told=${html`<code>${model.model_id}</code>`} />
        <${Fact} name=${words.checksum} told=${html`<code>${model.checksum}</code>`} />
        <${Fact} name=${words.trainedOn} told=${model.trained_on ?? words.notKnown} />
        <${Fact} name=${words.embedding} told=${words.embeddingOf(integer(model.embedding_size), model.features, model.image_size, model.device)} />
        <${Fact} name=${words.probabilities} told=${words.probabilitiesFrom[calibration ? "there" : "none"](model.probabilities)} />
        ${calibration && html`<${Fact} name=${words.calibration} told=${words.calibratedOn(calibration, percent)} />`}
        <${Fact} name=${words.engine} told=${`${engine.name}: ${engine.how}`} />
        ${engine.recall !== null && html`<${Fact} name=${words.recall} told=${percent(engine.recall)} />`}
      </dl>
    </section>
  `;
}

function Fact({ name, told }) {
  return html`<div><dt>${name}</dt><dd>${told}</dd></div>`;
}
