/** A question of a review, large, with its answers under keys and thumbs. */

import { imageUrl, thumbnailUrl } from "../api.js";
import { isTyping } from "../dom.js";
import { count, percent, time } from "../format.js";
import { LookTools, Pair, useLook } from "../pair.js";
import { address } from "../router.js";
import { html, useEffect, useLayoutEffect, useMemo, useReducer, useState } from "../vendor/preact.js";
import { review as words } from "../words.js";
import { Asking } from "./asking.js";
import { Progress } from "./progress.js";

const ANSWERS = [
  { key: "s", answer: "same" },
  { key: "d", answer: "different" },
  { key: "n", answer: "not_comparable" },
  { key: "u", answer: "unsure" },
];
const TURNS = { 1: "a", 2: "b" };

/** Questions until none is left. */
export function Queue() {
  const [, draw] = useReducer((drawn) => drawn + 1, 0);
  const asking = useMemo(() => new Asking(draw), []);
  const [turned, turn] = useState({});
  const { look, change, press } = useLook();
  const { question } = asking;
  useEffect(() => {
    asking.begin();
    return () => asking.stop();
  }, []);
  useEffect(() => {
    turn({});
    change({ reset: true });
  }, [question?.question_id]);
  useLayoutEffect(() => { // who sees a question can answer it
    const heard = (event) => {
      if (isTyping(event.target) || event.altKey || document.querySelector("dialog[open]")) return;
      const key = event.key.toLowerCase();
      const isUndo = key === "z";
      if ((event.ctrlKey || event.metaKey) && !isUndo) return;
      const chosen = ANSWERS.find((one) => one.key === key);
      if (event.repeat && (isUndo || chosen)) return;
      if (isUndo) asking.undo();
      else if (chosen) asking.answer(chosen.answer);
      else if (key in TURNS) turn((was) => ({ ...was, [TURNS[key]]: (was[TURNS[key]] ?? 0) + 1 }));
      else if (!press(event)) return;
      event.preventDefault();
    };
    document.addEventListener("keydown", heard);
    return () => document.removeEventListener("keydown", heard);
  }, []);
  const step = (side) => turn((was) => ({ ...was, [side]: (was[side] ?? 0) + 1 }));
  return html`
    <p class="problem" role="alert">${asking.trouble ?? refusalOf(asking)}</p>
    ${asking.refusal && !question ? html`<p><a href=${address("review", ["start"])}>${words.toStart}</a></p>` : null}
    ${question ? html`<${Question} question=${question} busy=${asking.busy} turned=${turned} step=${step} look=${look} change=${change} />` : null}
    ${question || !asking.over ? null : html`<${NothingLeft} again=${() => asking.begin()} />`}
    <${Progress} answers=${asking.done.length} pace=${asking.pace()} />
    ${question || asking.done.length > 0 ? html`<div class="answers" role="group" aria-label=${words.answer}>
      ${ANSWERS.map(
        ({ key, answer }) => html`
          <button key=${key} type="button" class=${answer} disabled=${!question || asking.busy}
            aria-keyshortcuts=${key} onClick=${() => asking.answer(answer)}>
            ${words.answers[answer]} <kbd aria-hidden="true">${key.toUpperCase()}</kbd>
          </button>
        `,
      )}
      <button type="button" class="undo" disabled=${asking.busy || asking.done.length === 0} aria-keyshortcuts="z"
        onClick=${() => asking.undo()}>
        ${words.undo} <kbd aria-hidden="true">Z</kbd>
      </button>
    </div>` : null}
    <p class="unseen" role="status">${said(asking)}</p>
  `;
}

function refusalOf({ refusal }) {
  // The service says by which route one is started, which is for programs.
  return refusal?.message.startsWith("no review was started") ? words.noReview : refusal?.message;
}

function said(asking) {
  const last = asking.done.at(-1);
  if (asking.busy || !asking.question) return "";
  return words.said(last && words.answers[last.given], asking.done.length + 1);
}

function Question({ question, busy, turned, step, look, change }) {
  const { a, b } = question;
  return html`
    <${Pair} key=${question.question_id} busy=${busy} look=${look} change=${change}
      left=${pictureOf(a, turned.a ?? 0, () => step("a"), "1")} right=${pictureOf(b, turned.b ?? 0, () => step("b"), "2")} />
    <details class="closer">
      <summary>${words.closer}</summary>
      <div class="controls"><${LookTools} look=${look} change=${change} /></div>
    </details>
    <p class="why">
      <b>${words.question}</b> <span>${words.because(words.reasons[question.reason] ?? question.why)}
      ${" "}${words.probability(percent(question.probability))} ${words.effect(a.size, b.size)}</span>
    </p>
  `;
}

/** A side of a question as a picture of a pair, with what is known of it below. */
function pictureOf(side, turns, step, shortcut) {
  const pictures = side.pictures.length > 0 ? side.pictures : [side.item_id];
  const place = turns % pictures.length;
  const { item } = side;
  const name = side.label ?? words.noName;
  const facts = [item?.camera, item?.site, item?.captured_at && time(item.captured_at), item?.viewpoint];
  const caption = html`
    ${side.identity_id ? html`<a href=${address("individuals", [side.identity_id])}>${name}</a>` : html`<b>${name}</b>`}
    <span> ${count(side.size, "photo")}</span>
    <span class="facts"> ${facts.filter(Boolean).join(" · ")}</span>
    ${pictures.length > 1 ? html`<${Strip} name=${name} pictures=${pictures} place=${place} step=${step} shortcut=${shortcut} />` : null}
  `;
  if (!item) return { url: null, name, caption, instead: html`<p class="gone">${words.gone}</p>` };
  return { url: imageUrl(pictures[place]), name, caption };
}

/** The photos of a group that can be looked at, one after another. */
function Strip({ name, pictures, place, step, shortcut }) {
  return html`
    <button type="button" class="strip" onClick=${step} aria-keyshortcuts=${shortcut}
      aria-label=${words.turn(name, place + 1, pictures.length)}>
      ${pictures.map((one, number) => html`<img key=${one} src=${thumbnailUrl(one)} alt="" class=${number === place ? "shown" : ""} />`)}
      <kbd aria-hidden="true">${shortcut}</kbd>
    </button>
  `;
}

function NothingLeft({ again }) {
  return html`
    <div class="empty">
      <p>${words.nothingLeft}</p>
      <div class="row">
        <button type="button" onClick=${again}>${words.lookAgain}</button>
        <a href=${address("individuals")}>${words.toIndividuals}</a>
        <a href=${address("review", ["start"])}>${words.askMore}</a>
      </div>
    </div>
  `;
}
