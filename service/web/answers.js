/** What a search found: what it says about the subject, and the photos. */

import { Cards } from "./cards.js";
import { byId, element } from "./dom.js";
import { clockOf, count, integer, verdict, verdictOf, ZONE } from "./format.js";
import { Overview } from "./overview.js";
import { urlOf } from "./subject.js";
import { html, render } from "./vendor/preact.js";
import { view } from "./viewer.js";
import { search as words } from "./words.js";

const time = (match) => (match.captured_at ? Date.parse(match.captured_at) : Infinity); // without one: last
const ORDERS = {
  score: (a, b) => a.rank - b.rank,
  oldest: (a, b) => time(a) - time(b) || a.rank - b.rank,
  newest: (a, b) => (time(b) === Infinity ? -1 : time(a) === Infinity ? 1 : time(b) - time(a)) || a.rank - b.rank,
};

export class Answers {
  /**
   * @param {() => import("./subject.js").Subject} subject who is asked about
   * @param {() => void} clearFilters
   */
  constructor(subject, clearFilters) {
    this.clearFilters = clearFilters;
    this.cards = new Cards(byId("results"), (cards, item) => view(cards, item, { url: urlOf(subject()), subject: subject() }));
  }

  /** Whether there are photos, of this or an earlier answer. */
  areShown() {
    return this.cards.items.length > 0;
  }

  /** @param {"score"|"oldest"|"newest"} order */
  show(answer, order) {
    this.showPhotos(answer.matches, order);
    byId("results-title").textContent = verdictOf(answer) === "known" ? words.known : words.nearest;
    const searched = count(answer.candidates, "photo");
    const milliseconds = Math.ceil(answer.took_ms);
    const found = answer.matches.length;
    const timed = answer.matches.some((match) => match.captured_at && !clockOf(match.captured_at)) ? words.times(ZONE) : "";
    const meant = found > 0 && answer.matches[0].probability === null ? words.cosines : "";
    const facts = found > 0 ? words.facts(integer(found), searched, milliseconds) : words.none(searched, milliseconds);
    this.tell(verdict(answer), verdictOf(answer), facts + timed + meant);
    byId("answer-empty").replaceChildren(...(found > 0 ? [] : this.noMatch(answer)));
  }

  noMatch(answer) {
    const clear = element("button", { type: "button", onclick: this.clearFilters }, words.clear);
    if (answer.candidates > 0) return [element("p", {}, words.belowScore(count(answer.candidates, "photo"))), clear];
    if (Object.values(answer.filter).some((value) => value !== null)) return [element("p", {}, words.noneLeft), clear];
    const add = element("a", { href: "#/imports" }, words.addPhotos);
    return [element("p", {}, words.emptyGallery, add, words.first)];
  }

  /** Show photos as cards, and when and where they were taken. */
  showPhotos(matches, order = "score") {
    this.cards.show([...matches].sort(ORDERS[order]));
    const open = (match) => this.cards.open(this.cards, match);
    render(html`<${Overview} matches=${matches} open=${open} />`, byId("overview"));
  }

  showNothingAsked() {
    this.showPhotos([]);
    byId("results-title").textContent = words.nearest;
    this.tell("", "");
    byId("answer-empty").replaceChildren(element("p", {}, words.empty));
  }

  /** Say why there is no answer, in place of one. */
  complain(message) {
    this.showPhotos([]);
    this.tell(message, "refused");
    byId("answer-empty").replaceChildren();
  }

  /** Say that a search was cancelled; what was shown before stays. */
  offerAgain(ask) {
    this.tell(words.cancelled, "");
    byId("answer-empty").replaceChildren(element("button", { type: "button", onclick: ask }, words.again));
  }

  /** Say something about the answer that is shown. */
  tell(text, kind, facts = "") {
    const shown = byId("verdict");
    shown.textContent = text;
    shown.className = kind;
    byId("answer-facts").textContent = facts;
  }
}
