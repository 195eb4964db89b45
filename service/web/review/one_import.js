/** The review of what one import added: where it has begun, it goes on, and no other one is started unasked. */

import * as api from "../api/review.js";
import { IMPORT } from "../filters.js";
import { address } from "../router.js";
import { html, useEffect, useState } from "../vendor/preact.js";
import { review as words } from "../words.js";
import { Start } from "./start.js";

const SECONDS = 1; // between looks at a review that is being made ready

/** Whether the review that was started last is of what an import added, and of nothing else. */
async function isOf(importId) {
  for (;;) {
    try {
      const { filter } = await api.status();
      const said = Object.entries(filter).filter(([, value]) => value !== null);
      return JSON.stringify(said) === JSON.stringify([[IMPORT, [importId]]]);
    } catch (error) {
      if (error.status !== 503) return false; // there is none
      await new Promise((wait) => setTimeout(wait, 1000 * SECONDS));
    }
  }
}

/** The form of a new review, unless one of these photos goes on, which `started` is called with. */
export function NewOne({ jobId, importId, anew, may, started }) {
  const [looked, look] = useState(!importId || jobId || anew || !may);
  useEffect(() => {
    let gone = false;
    if (!looked) isOf(importId).then((goesOn) => !gone && (goesOn ? started(importId) : look(true)));
    return () => void (gone = true);
  }, [importId]);
  if (!looked && !anew) return html`<p role="status">${words.looking}</p>`;
  return html`<${Start} jobId=${jobId} importId=${importId} may=${may} started=${() => started(null)} />`;
}

/** Says that the questions below are of a review that had begun. */
export function GoesOn({ importId }) {
  const [same, tell] = useState(false);
  useEffect(() => {
    let gone = false;
    isOf(importId).then((is) => !gone && tell(is));
    return () => void (gone = true);
  }, []);
  if (!same) return null;
  const anew = new URLSearchParams({ [IMPORT]: importId, anew: "1" });
  return html`<p role="status">${words.goesOn} <a href=${address("review", ["start"], anew)}>${words.anew}</a></p>`;
}
